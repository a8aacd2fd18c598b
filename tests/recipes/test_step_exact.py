"""Each recipe makes the steps of its reference, one by one, on one process and on two ranks.

Every recipe is composed and built as a user would, at toy size, and trained through fovea's
Trainer. A plain loop, written from the reference (`references.py`, `timm_references.py`), then
makes the same steps from the same start, batches and draws. In networks of batch norm, dropout or
stochastic depth the loop takes the micro-batches one at a time, in the others each global batch at
once.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

from fovea.catalog import config_dir, groups
from fovea.experiment import count_steps
from recipes.comparing import Compared, compare, table
from recipes.references import Plain, Torchvision2016
from recipes.step_table import record, traces
from recipes.toys import RECIPES

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the traces of all recipes, ``<name>-<ranks>-rank<R>.pt``."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "step_exact"
    with FileLock(f"{folder}.lock"):  # several test processes share one set of runs
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            record(folder)
            (folder / "done").touch()
    torch.set_num_threads(1)
    return folder


def test_every_recipe_has_a_reference():
    """A new recipe is one entry in toys.py.

    cifar10_speedrun has its plain script (test_speedrun.py). Those of the transfer study are
    cifar10_resnet18 and transfer_to_folder with other classes and another network.
    """
    elsewhere = {"cifar10_speedrun", "transfer_pretrain", "transfer_study"}
    assert set(RECIPES) | elsewhere == set(groups()["experiment"])


@slow
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", RECIPES)
def test_the_steps_are_the_references(recorded, name, world):
    ranks = traces(recorded, name, world)
    done = compare(name, ranks)
    assert done.steps >= 20
    assert done.wrong() == {}
    assert {"lr", "decay", "trains", "steps", "loss", "norm", "weights"} <= done.found.keys()
    assert ("EMA" in done.found) == (name in {"resnet50_v2", "convnext_tiny"})
    stochastic = {"resnet50_rsb_a1", "resnet50_rsb_a2", "convnext_tiny", "vit_b16_mae"}
    assert ("drop path" in done.found) == (name in stochastic | {"vit_b16_transfer"})
    for trace in ranks:
        assert trace["accumulate"] == world
        assert trace["norms"] == ranks[0]["norms"]
        assert trace["average_norms"] == ranks[0]["average_norms"]


@slow
@pytest.mark.parametrize(
    ("name", "change", "columns"),
    [
        ("alexnet", {"loop": Torchvision2016}, {"lr", "loss", "norm", "weights"}),
        ("transfer_to_folder", {"probe": 0}, {"lr", "trains", "loss", "norm", "weights"}),
        ("vit_b16_transfer", {"weight_decay": 0.01}, {"decay", "norm", "weights"}),
        ("resnet50_transfer", {"max_norm": None}, {"loss", "weights"}),
    ],
)
def test_another_reference_is_told_apart(recorded, monkeypatch, name, change, columns):
    toy = RECIPES[name]
    if "loop" not in change:
        settings = toy.loop.keywords | change
        change = {"loop": lambda *sizes: Plain(*sizes, **settings)}
    monkeypatch.setitem(RECIPES, name, dataclasses.replace(toy, **change))
    assert columns <= compare(name, traces(recorded, name, 1)).wrong().keys()


TRAIN = 1281167
"""Images of ImageNet's train split."""
RANKS_FILL_UP = math.ceil(math.ceil(TRAIN / 8) / 32)
"""torchvision's DistributedSampler repeats images until the ranks have equally many."""
STEPS = {
    **dict.fromkeys(["alexnet", "vgg16", "vgg16_bn", "resnet18_v1", "resnet50_v1"], RANKS_FILL_UP),
    "resnet50_v2": TRAIN // 256 * 256 // 8 // 128,  # RASampler rounds to 256 images
    # timm's RepeatAugSampler likewise; 512 on each of 4 GPUs, the last batch dropped
    **dict.fromkeys(["resnet50_rsb_a1", "resnet50_rsb_a2"], TRAIN // 256 * 256 // 4 // 512),
    "resnet50_rsb_a3": math.ceil(TRAIN / 4) // 512,
    "convnext_tiny": TRAIN // 4096,
    "vit_b16_mae": math.ceil(TRAIN / 32) // 32,
    "vit_s16": round(90 * int(0.99 * TRAIN) / 1024) / 90,  # not a whole number: epochs flow on
    "resnet18_ffcv": TRAIN // 1024,
    "resnet50_ffcv": TRAIN // 8 // 512,
    **dict.fromkeys(["resnet18_cifar10", "resnet18_cifar100"], math.ceil(50000 / 128)),
}
"""Optimiser steps of an epoch in each reference, at its own size."""


@pytest.mark.parametrize("name", STEPS)
def test_an_epoch_has_the_references_steps_at_full_size(name):
    text = (config_dir() / "experiment" / f"{name}.yaml").read_text()
    document = yaml.safe_load(text)["expected"]
    own = count_steps(document["train_images"] // document["global_batch"], 1, None)
    if own != STEPS[name]:  # then the recipe says so
        head = " ".join(text.partition("defaults:")[0].replace("#", " ").split())
        assert "last, incomplete batch" in head or "last whole batch" in head
        if name == "vit_s16":
            assert f"{90 * own:,} steps in all, there {round(90 * STEPS[name]):,}" in head
        elif "cifar" not in name:
            assert f"({own} steps, there {STEPS[name]})" in head


def test_the_table_says_what_was_compared():
    one = Compared(21, True, {"lr": 0.0, "loss": 2e-7, "decay": "{} != {}"})
    two = Compared(21, False, {"lr": 1e-16, "loss": 1e-7})
    head, _, row = table({("resnet18_v1", 1): one, ("resnet18_v1", 2): two}).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["rate of each parameter"] == "1e-16"
    assert cells["loss"] == "2e-07"
    assert cells["decay by name"] == "differs"
    assert cells["parameter norm"] == ""
    assert cells["2 x 2 against"] == "micro-batches"
