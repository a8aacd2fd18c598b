"""The ledger: runs against documents, and what is never called a reproduction."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import cache

import pytest
import yaml
from omegaconf import OmegaConf

from fovea.arguments import compose_checked
from fovea.recipes import changed
from fovea.recipes.ledger import judge, ledger
from fovea.runs.settings import flatten
from made_runs import write_run
from process import ROOT, environment

CIFAR = {"train": {"count": 49375}, "val": {"count": 625}, "test": {"count": 10000}}
IMAGES = {"train": {"count": 1281167}, "val": {"count": 50000}}


def run_of(folder, recipe, words=(), top1=0.7613, splits=IMAGES, **summary):
    """Write a run of ``recipe`` whose last epoch has the top-1 of ``top1``."""
    cfg = compose_checked("train", [f"experiment={recipe}", *words])
    cfg.run_id, cfg.paths.run = folder.name, str(folder)
    plain = OmegaConf.to_container(cfg, resolve=True)
    write_run(folder, config=plain, splits=splits, **summary)
    typed = [f"experiment={recipe}", *words]
    (folder / "overrides.yaml").write_text(yaml.safe_dump(typed))
    rows = [f"{epoch},{epoch},{top1 + lift},0.93" for epoch, lift in enumerate((0.01, 0.0))]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/top1,val/top5", *rows]) + "\n")
    return folder


def evaluation(folder, words, root):
    """Write an evaluation typed beside ``root`` that reached what the 24 epochs promise."""
    words = ["split=val", *words]
    settings = {**dict(word.split("=") for word in words), "run_id": folder.name}
    settings.pop("data", None)
    top = {"val/top1": 0.756, "val/top5": 0.921}
    write_run(folder, metrics=top)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(words))
    (folder / "environment.json").write_text(json.dumps({"folder": str(root.parent)}))


@pytest.fixture(scope="module")
def entries_of(outputs):
    entries, broken = ledger(outputs)

    def of(recipe):
        return [e for e in entries if e.recipe == recipe and e.metric == "val/top1"], broken

    return of


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("ledger")
    free = ["trainer.devices=2", "trainer.accumulate_grad_batches=4", "seed=3", "logger=none"]
    run_of(root / "whole", "resnet50_v1", [*free, "data.num_workers=3", "data.root=/elsewhere"])
    run_of(root / "short", "resnet50_v1", top1=0.70)
    run_of(root / "other_rate", "resnet50_v1", ["optimizer.lr=0.2", "data.batch_size=512"])
    run_of(root / "little_data", "resnet50_v1", splits={"train": {"count": 1000}})
    run_of(root / "cut", "resnet50_v1", state="interrupted")
    run_of(root / "mae", "vit_b16_mae", ["model.weights=/x/mae.pth"], top1=0.8360)
    run_of(root / "random", "vit_b16_mae", top1=0.8360)
    run_of(root / "ffcv", "resnet50_ffcv", ["trainer.max_epochs=24", "augment.grow=[17,20]"])
    shards, both = ["data=shards", "data.root=/shards"], {"splits": IMAGES, "classes": 1000}
    ffcv = ["trainer.max_epochs=88", "augment.grow=[65,76]", *shards]
    run_of(root / "ffcv_shards", "resnet50_ffcv", ffcv, **both)
    run_of(root / "shards", "resnet18_v1", shards, top1=0.6976, **both)
    run_of(root / "shards_unknown", "resnet18_v1", shards, top1=0.6976)
    run_of(root / "shards_of_ten", "resnet18_v1", shards, splits=IMAGES, classes=10)
    run_of(root / "shards_part", "resnet18_v1", [*shards, "data.fraction=0.5"], **both)
    run_of(root / "speedrun", "cifar10_speedrun", metrics={"test/top1": 0.941}, splits=CIFAR)
    run_of(root / "one_view", "cifar10_speedrun", ["views=center"],
           metrics={"test/top1": 0.941}, splits=CIFAR)  # fmt: skip
    evaluation(
        root / "flipped", [f"ckpt={root.name}/ffcv/checkpoints/last.ckpt", "views=flip"], root
    )
    evaluation(root / "best", [f"ckpt={root.name}/ffcv_shards", "views=flip"], root)
    evaluation(root / "elsewhere", [f"ckpt={root}/ffcv_shards/checkpoints/last.ckpt", "views=flip",
                                    "data=folder"], root)  # fmt: skip
    (root / "broken").mkdir()
    (root / "broken" / "config.yaml").write_text("a: [1\n")
    (root / "broken" / "summary.json").write_text("{")
    return root


def test_only_whole_and_unchanged_runs_are_reproductions(entries_of):
    entries, _ = entries_of("resnet50_v1")
    found = {entry.run: entry for entry in entries}
    assert found["whole"].verdict == "reproduced"
    assert found["whole"].reached == pytest.approx(0.7613)  # the last epoch, not the best
    assert found["short"].verdict == "not reached, short by 0.0613"
    assert found["other_rate"].verdict == "another recipe"
    assert found["other_rate"].changes == (
        "data.batch_size=512 (recipe: 256)",
        "optimizer.lr=0.2 (recipe: 0.1)",
    )
    assert found["little_data"].verdict == "another recipe"
    assert found["little_data"].changes == ("1,000 training images (recipe: 1,281,167)",)
    assert found["cut"].verdict == "interrupted, not counted"


def test_weights_that_had_to_be_given_are_no_change(entries_of):
    entries, _ = entries_of("vit_b16_mae")
    found = {entry.run: entry for entry in entries}
    assert found["mae"].verdict.startswith("reproduced (which weights it began from isn't checked")
    assert found["mae"].changes == ()
    assert found["random"].changes == ("model.weights=None (recipe: MAE, ViT-B/16, 1600 epochs)",)


def test_a_variant_is_told_from_its_recipe_and_views_are_asked_for(entries_of):
    entries, _ = entries_of("resnet50_ffcv")
    found = {entry.variant: entry for entry in entries}
    assert found["24 epochs"].run == "ffcv"
    assert found["24 epochs"].expected == 0.756
    assert found["24 epochs"].changes == ()
    # An evaluation of its last checkpoint, typed with a path from where that was.
    assert found["24 epochs"].verdict == "reproduced (flip views)"
    # Of this run the best checkpoint was evaluated, and the last one on other data.
    verdict = found["88 epochs"].verdict
    assert verdict.startswith("not measured: published with views=flip, so type python src/eval.py")
    assert "ffcv_shards/checkpoints/last.ckpt split=val views=flip" in verdict
    assert found[""].verdict == found["56 epochs"].verdict == "unverified here"


def test_images_in_shards_are_the_same_recipe_if_there_are_as_many(entries_of):
    entries, _ = entries_of("resnet18_v1")
    found = {entry.run: entry for entry in entries}
    assert found["shards"].verdict == "reproduced (images stored otherwise: in shards)"
    assert found["shards_unknown"].verdict == "another recipe"
    assert found["shards_unknown"].changes == (
        "images stored otherwise: in shards, and how many is not recorded",
    )
    assert found["shards_of_ten"].changes == ("10 classes (recipe: 1,000)",)
    assert found["shards_part"].changes == ("data.fraction=0.5 (recipe: 1.0)",)
    variants = {entry.variant: entry for entry in entries_of("resnet50_ffcv")[0]}
    assert variants["88 epochs"].run == "ffcv_shards"
    assert variants["88 epochs"].changes == ()


def test_broken_folders_are_listed(entries_of):
    _, broken = entries_of("resnet50_v1")
    assert len(broken) == 1
    assert broken[0].startswith("broken: ")


def test_no_folder_stops_the_ledger(tmp_path):
    broken = {
        "cut_json": ("summary.json", b'{"state": "fini'),
        "cut_csv": ("metrics.csv", b'epoch,step,val/top1\n"0,1'),
        "binary": ("config.yaml", b"\xff\xfe\x00"),
        "words": ("overrides.yaml", b"{a: 1}"),
        "splits": ("summary.json", b'{"state": "finished", "splits": [1], "classes": "ten"}'),
    }
    for name, (file, content) in broken.items():
        (run_of(tmp_path / name, "alexnet") / file).write_bytes(content)
    directory = run_of(tmp_path / "directory", "alexnet") / "summary.json"
    directory.unlink()
    directory.mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_run").mkdir()
    (tmp_path / "no_run" / "notes.txt").write_text("hello")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    entries, listed = ledger(tmp_path)
    told = {line.partition(":")[0] for line in listed}
    assert told == {"cut_json", "binary", "words", "directory"}
    verdicts = {e.run: e.verdict for e in entries if e.recipe == "alexnet"}
    assert "reproduced" not in {verdicts.get(name) for name in told}
    assert verdicts["cut_csv"] == "not measured"  # a line that is being written is no fault


def test_the_command_prints_it_all(outputs, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/ledger.py"), str(outputs), "--changes", "1"],
        env=environment(), cwd=tmp_path, text=True, capture_output=True, timeout=300, check=True,
    )  # fmt: skip
    out = done.stdout
    assert "alexnet" in out
    assert "unverified here" in out
    assert "and 1 more: --changes 0" in out
    assert "Can't be read, and not counted:\n  broken: " in out
    assert "56 epochs" not in out
    gone = subprocess.run(
        [sys.executable, str(ROOT / "scripts/ledger.py"), "nowhere"],
        env=environment(), cwd=tmp_path, text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert gone.returncode == 2
    assert gone.stderr.startswith("There is no folder of runs at")
    (tmp_path / "empty").mkdir()
    none = subprocess.run(
        [sys.executable, str(ROOT / "scripts/ledger.py"), "empty"],
        env=environment(), cwd=tmp_path, text=True, capture_output=True, timeout=300, check=True,
    )  # fmt: skip
    assert none.stdout.endswith("No run of a recipe is in empty.\n")


def test_how_far_a_run_may_fall_short():
    assert judge(0.8357, 0.0008, 0.8342, 50_000) == "reproduced"
    assert judge(0.8357, 0.0008, 0.8340, 50_000).startswith("not reached")
    deviation = math.sqrt(0.76 * 0.24 / 50_000)  # binomial, by hand: 0.00191
    assert judge(0.76, None, 0.76 - 1.99 * deviation, None) == "reproduced"
    assert judge(0.76, None, 0.76 - 2.01 * deviation, None) != "reproduced"
    assert judge(0.76, None, 0.76 - 4 * deviation, 5_000) == "reproduced"
    assert judge(0.76, None, 0.9, 50_000) == "reproduced"


@pytest.mark.parametrize(
    ("word", "matters"),
    [
        ("trainer.devices=8", False), ("trainer=ddp", False), ("logger=csv", False),
        ("launcher=slurm", False), ("data.num_workers=0", False), ("seed=5", False),
        ("checkpoint.every_minutes=5", False), ("compile=true", False),
        ("callbacks=[default,ema]", True), ("optimizer.weight_decay=0.0002", True),
        ("trainer.precision=bf16-mixed", True), ("trainer.limit_train_batches=10", True),
        ("trainer.max_time=00:01:00:00", True), ("data.repeats=2", True),
        ("data.image_size=192", True), ("data.fraction=0.5", True), ("freeze=lp_ft", True),
        ("task.no_decay=norms", True), ("model.weights=IMAGENET1K_V1", True),
        ("monitor.metric=val/top5", True), ("on_nan=skip", True),
        ("+optimizer.dampening=0.1", True),
    ],
)  # fmt: skip
def test_what_matters(word, matters):
    assert bool(changed(settings_of(), settings_of(word))) == matters


@cache
def settings_of(*words):
    cfg = compose_checked("train", ["experiment=resnet18_v1", *words])
    cfg.paths.run = "here"
    return flatten(OmegaConf.to_container(cfg, resolve=True))


def test_a_score_of_the_test_split_counts_if_the_run_saw_the_published_views(outputs):
    entries, _ = ledger(outputs)
    found = {entry.run: entry for entry in entries if entry.recipe == "cifar10_speedrun"}
    assert found["speedrun"].verdict == "reproduced (mirror_translate views)"
    assert found["speedrun"].reached == pytest.approx(0.941)
    assert found["one_view"].changes == ()
    assert "split=test views=mirror_translate" in found["one_view"].verdict
