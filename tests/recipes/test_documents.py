"""Each recipe is a document that holds: it says its source and numbers, builds, and trains."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fovea.arguments import compose_checked
from fovea.catalog import config_dir, groups
from fovea.config import check
from fovea.errors import FoveaError
from fovea.experiment import build, compose
from fovea.recipes import Built, departures, document_rows

RECIPES = groups()["experiment"]
FILES = {name: (config_dir() / "experiment" / f"{name}.yaml").read_text() for name in RECIPES}
DOCUMENTS = {n: e for n, t in FILES.items() if (e := yaml.safe_load(t).get("expected"))}
TINY = {
    "resnet18_ffcv": [],
    "resnet50_v2": ["model=resnet18"],
    "resnet50_rsb_a2": ["model.name=test_resnet"],
    "vit_s16": ["model.name=test_vit"],
}
"""Recipes that are trained, with the network that stands in for theirs."""
SMALL = ["data.image_size=32", "data.batch_size=8", "data.num_workers=0"]


def test_the_recipes_are_these():
    wanted = {
        "alexnet", "vgg16", "vgg16_bn", "resnet18_v1", "resnet50_v1", "resnet50_v2",
        "resnet50_rsb_a1", "resnet50_rsb_a2", "resnet50_rsb_a3", "convnext_tiny", "vit_s16",
        "vit_b16_mae", "resnet18_ffcv", "resnet50_ffcv", "resnet18_cifar10", "resnet18_cifar100",
        "cifar10_speedrun",
    }  # fmt: skip
    assert wanted == set(DOCUMENTS)
    assert {"resnet50_transfer", "vit_b16_transfer"} <= set(RECIPES) - set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_head_says_what_one_has_to_know(name):
    head = FILES[name].partition("defaults:")[0]
    for word in (
        "Source",
        "Global batch",
        "valuation",
        "Hardware|Published on",
        "ours|min",
        "pread",
    ):
        assert re.search(word, head), f"{name}: {word}"
    document = DOCUMENTS[name]
    assert f"experiment={name}" in head
    assert f"{document['global_batch']:d}" in head
    top1 = document["results"][0]["value"]
    written = [f"{100 * top1:.{digits}f}" for digits in (1, 2, 3)]
    assert any(number in FILES[name].splitlines()[1] for number in written), written
    assert max(map(len, FILES[name].splitlines())) <= 100


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_composed_is_what_the_document_says(name):
    """The numbers of `expected` are those of the settings beside it."""
    document = DOCUMENTS[name]
    cfg = compose_checked("train", [f"experiment={name}"])
    assert cfg.data.batch_size == document["global_batch"]
    assert cfg.trainer.max_epochs == document["epochs"]
    if (size := cfg.data.image_size) is not None:
        assert document["eval_size"] == size
        assert document["eval_resize"] == round(size / cfg.data.crop_ratio)
        assert document["train_size"] == (cfg.augment.size or size)
    for variant in (document["variants"] or {}).values():
        changed = compose_checked("train", [f"experiment={name}", *variant["overrides"]])
        assert changed.trainer.max_epochs == variant["epochs"]
        assert changed.augment.grow[1] < variant["epochs"]


def test_unknown_keys_and_wrong_values_of_expected_are_errors():
    cfg = compose_checked("train", ["experiment=resnet50_v1", "data.root=x"])
    check(cfg, "train")
    for word, said in (
        ("+expected.value=0.5", r"expected\.value: a recipe's document has no such key here"),
        ("+expected.epoch=90", r"expected\.epoch: .*Did you mean 'epochs'\?\n  It has: source, "),
        ("+expected.results.0.valeu=0.7", r"results\.0\.valeu: .*'value'\?\n  It has: metric, "),
        ("expected.results.0.value=76.13", r"expected\.results\.0\.value=76\.13.*at most 1"),
        ("expected.results.0.metric=top1", r"a metric of val or test"),
        ("expected.epochs=ninety", r"expected\.epochs.*a whole number"),
        ("~expected.source", r"expected\.source is missing"),
    ):
        wrong = compose_checked("train", ["experiment=resnet50_v1", "data.root=x", word])
        with pytest.raises(FoveaError, match=said):
            check(wrong, "train")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Return a folder like ImageNet's, of 3 classes."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for wnid in ("n01440764", "n01443537", "n01484850"):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / f"{i}.JPEG")
    return root


def words(name: str, root: Path, out: Path) -> list[str]:
    own = [f"experiment={name}", f"paths.outputs={out}", f"data.root={root}", *SMALL]
    own += ["logger=none", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=2"]
    own += ["trainer.precision=32-true", "trainer.limit_train_batches=2", "channels_last=false"]
    study = name in {"transfer_pretrain", "transfer_study"}
    if "cifar" in name or study:
        own = [word for word in own if "root" not in word]
        own += ["data=folder", f"data.root={root}", "data.val_fraction=0.1", "test=false"]
    elif "transfer" not in name:
        own += ["data.classes=present"]
    if study:
        own += ["data.classes=[n01440764,n01443537]"]
    if name in {"transfer_study", "vit_b16_mae", "resnet50_transfer", "vit_b16_transfer"}:
        own += ["model.weights=null"]
    if "ffcv" in name:
        own += ["augment.size=64", "augment.start_size=32", "augment.grow=[0,1]"]
    elif name == "cifar10_speedrun":
        own += ["model.widths=[8,8,8]"]
    elif name in {"resnet50_v2", "resnet50_rsb_a3"}:
        own += ["augment.size=24"]
    elif name.startswith("resnet50_rsb"):
        own += ["augment.size=32"]
    return own


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_at_toy_size(name, imagenet, tmp_path):
    cfg = compose(words(name, imagenet, tmp_path))
    made = build(cfg)
    rows = made.rows
    if name in DOCUMENTS:
        assert dict(rows)["document"].startswith(DOCUMENTS[name]["results"][0]["metric"])
        differs = [how for what, how in rows if what == "differs"]
        assert f"global batch: 8, the document has {DOCUMENTS[name]['global_batch']:,}" in differs
        assert any(line.startswith("training images: 4") for line in differs)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_the_cheap_ones_make_two_steps_an_epoch(name, imagenet, tmp_path):
    cfg = compose([*words(name, imagenet, tmp_path), *TINY[name]])
    made = build(cfg)
    before = {n: p.detach().clone() for n, p in made.task.named_parameters()}
    made.trainer.fit(made.task, datamodule=made.data)
    assert made.trainer.global_step == 4
    moved = [n for n, p in made.task.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > 0.9 * len(before)
    assert all(torch.isfinite(p).all() for p in made.task.parameters())


def test_wrong_data_weights_and_sizes_are_told():
    document = DOCUMENTS["resnet50_ffcv"]
    right = Built(16, 4096, 192, 256, 293, 1000, 1281167, 25557032, None)
    assert departures(document, right) == []
    longer = Built(88, 4096, 192, 256, 293, 1000, 1281167, 25557032, None)
    assert departures(document, longer) == []  # a variant of it
    wrong = Built(20, 512, 192, 224, None, 10, 1150, 23528522, "IMAGENET1K_V2")
    assert departures(document, wrong) == [
        "epochs: 20, the document has 16",
        "global batch: 512, the document has 4,096",
        "pixels in evaluation: 224, the document has 256",
        "pixels of the shorter side in evaluation: none, the document has 293",
        "classes: 10, the document has 1,000",
        "training images: 1,150, the document has 1,281,167",
        "parameters: 23,528,522, the document has 25,557,032",
        "begins from IMAGENET1K_V2, the document from random weights",
    ]


def test_a_recipe_with_other_data_network_and_size_says_so_before_it_starts(tmp_path):
    words = ["data=digits", "model=resnet18", "data.image_size=192", f"paths.outputs={tmp_path}"]
    rows = build(compose(["experiment=resnet50_v1", *words, "logger=none"])).rows
    assert {how for what, how in rows if what == "differs"} >= {
        "pixels in evaluation: 192, the document has 224",
        "pixels of the shorter side in evaluation: 219, the document has 256",
        "classes: 10, the document has 1,000",
        "training images: 1,150, the document has 1,281,167",
        # 11,689,512 less 990 classes of 513 and two of three channels of 64 x 7 x 7.
        "parameters: 11,175,370, the document has 25,557,032",
    }


def test_a_setting_that_other_data_do_not_have_is_named_with_the_way_out(tmp_path):
    said = r"keyword argument 'official_val'.*~data\.official_val"
    with pytest.raises(FoveaError, match=said):
        build(compose(["experiment=vit_s16", "data=digits", f"paths.outputs={tmp_path}"]))


def test_shards_are_told():
    document = DOCUMENTS["resnet50_ffcv"]
    built = Built(16, 4096, 192, 256, 293, 1000, 1281167, 25557032, None, in_shards=True)
    rows = document_rows(document, built, 512)
    assert [what for what, _ in rows] == ["document", "stored"]


def test_other_devices_change_only_what_batch_norm_sees(imagenet, tmp_path):
    own = [*words("resnet18_v1", imagenet, tmp_path), "trainer.accumulate_grad_batches=4"]
    rows = build(compose(own)).rows
    said = "BatchNorm sees 2 images at a time, the document's 32 (8 devices)"
    assert any(how.startswith(said) for what, how in rows if what == "differs")
