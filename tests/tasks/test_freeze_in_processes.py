"""The freeze schedule under DDP, resume, accumulation, EMA and compile, in real processes.

The network has a stem, a middle, a last stage and a head. With the schedule `GRADUAL` the head
trains from epoch 0, the last stage from epoch 1, everything from epoch 3 of 4.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import fovea

pytestmark = pytest.mark.slow

EVERY_KIND = [
    "sgd", "adamw", "lamb", "accumulate", "batchnorm", "batchnorm_adamw", "batchnorm_lamb",
    "back_and_forth", "ema", "compile", "everything",
]  # fmt: skip
ON_FOUR_RANKS = ["sgd", "accumulate", "everything"]
WITHOUT_NORM = ["sgd", "adamw", "lamb", "accumulate"]
CHECKPOINTS = [
    *("epoch0", "epoch1", "epoch2"),  # saved as an epoch ends, as every phase does here
    *("validation0", "validation1", "validation2"),  # saved as its validation ends
    *("step2", "step4", "step8", "step10"),  # saved in the middle of epochs 0, 1, 2 and 3
]
RESUMED = [("everything", checkpoint) for checkpoint in CHECKPOINTS]
RESUMED += [*itertools.product(["sgd", "batchnorm_lamb", "back_and_forth"], CHECKPOINTS[:3])]
RESUMED_ON_TWO = [("everything", checkpoint) for checkpoint in ("epoch0", "epoch2", "step4")]
EPOCHS = range(4)
STAGES = ["head", "last", "middle", "stem"]
TRAINS = {0: STAGES[:1], 1: STAGES[:2], 2: STAGES[:2], 3: STAGES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the dumps of all runs: ``world2/sgd/epoch0-rank1.pt`` and so on."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "freeze_runs"
    with FileLock(f"{out}.lock"):  # several test processes share one set of runs
        if not (out / "done").exists():
            names = [f"{name}@{checkpoint}" for name, checkpoint in RESUMED]
            two = [f"{name}@{checkpoint}" for name, checkpoint in RESUMED_ON_TWO]
            command = [
                f"1:{','.join([*EVERY_KIND, 'evaluate', *names])}",
                f"2:{','.join([*EVERY_KIND, 'evaluate', *two])}",
                "3:evaluate",
                f"4:{','.join([*ON_FOUR_RANKS, 'evaluate'])}",
            ]
            _run(out, command)
            (out / "done").touch()
    return out


def _run(out: Path, command: list[str]) -> None:
    source = Path(fovea.__file__).parents[1]
    script = Path(__file__).with_name("freeze_runs.py")
    run = subprocess.run(
        [sys.executable, str(script), str(out), *command],
        env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-5000:]


def dump(runs: Path, world: int, name: str, moment: str, rank: int = 0) -> dict[str, Any]:
    return torch.load(runs / f"world{world}" / name / f"{moment}-rank{rank}.pt")


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every number and tensor in nested containers with the path to it."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from numbers(item, f"{path}/{position}")
    elif isinstance(value, int | float):
        yield path, torch.tensor(value, dtype=torch.float64)


def assert_same_bits(one: Any, other: Any) -> None:
    ones, others = dict(numbers(one)), dict(numbers(other))
    assert ones.keys() == others.keys()
    assert ones
    for path in ones:
        assert torch.equal(ones[path], others[path]), path


def of_stages(tensors: dict[str, torch.Tensor], stages: list[str]) -> dict[str, torch.Tensor]:
    prefixes = tuple("head." if s == "head" else f"backbone.net.{s}." for s in stages)
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("world", "name"), [*((2, n) for n in EVERY_KIND), *((4, n) for n in ON_FOUR_RANKS)]
)
def test_ranks_hold_identical_bits(runs: Path, world: int, name: str) -> None:
    """After every epoch, so after each of two unfreezes; the average of the weights as well."""
    for moment in ["epoch0", "epoch1", "epoch2", "epoch3", "end"]:
        first = dump(runs, world, name, moment)
        for rank in range(1, world):
            assert_same_bits(first, dump(runs, world, name, moment, rank))


@pytest.mark.parametrize(
    ("world", "name"),
    [*((2, n) for n in WITHOUT_NORM), *((4, n) for n in ON_FOUR_RANKS if n in WITHOUT_NORM)],
)
def test_ranks_together_equal_one_process(runs: Path, world: int, name: str) -> None:
    for epoch in EPOCHS:
        one = dump(runs, 1, name, f"epoch{epoch}")
        many = dump(runs, world, name, f"epoch{epoch}")
        assert one["trainable"] == many["trainable"]
        for key in ("parameters", "optimizer"):
            ones, others = dict(numbers(one[key])), dict(numbers(many[key]))
            assert ones.keys() == others.keys()
            for path in ones:
                torch.testing.assert_close(ones[path], others[path], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("world", "name"),
    [(1, "accumulate"), (2, "sgd"), (2, "accumulate"), (4, "sgd"), (4, "accumulate")],
)
def test_the_loss_of_each_step_does_not_depend_on_devices_or_accumulation(
    runs: Path, world: int, name: str
) -> None:
    expected, got = dump(runs, 1, "sgd", "end"), dump(runs, world, name, "end")
    assert len(expected["losses"]) == 12
    torch.testing.assert_close(
        torch.tensor(got["losses"]), torch.tensor(expected["losses"]), atol=2e-6, rtol=0
    )
    assert got["rates"][-1] == expected["rates"][-1]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", [name for name in EVERY_KIND if name != "back_and_forth"])
def test_frozen_stages_do_not_move_by_one_bit_and_thawed_ones_do(
    runs: Path, world: int, name: str
) -> None:
    before = dump(runs, world, name, "start")
    for epoch in EPOCHS:
        after = dump(runs, world, name, f"epoch{epoch}")
        frozen = [stage for stage in STAGES if stage not in TRAINS[epoch]]
        assert after["trainable"] == [*of_stages(dict.fromkeys(after["parameters"]), TRAINS[epoch])]
        for content in ("parameters", "buffers"):
            still = of_stages(after[content], frozen)
            for key, value in still.items():
                assert torch.equal(value, before[content][key]), (epoch, key)
                if after["average"]:
                    assert torch.equal(value, after["average"][key]), (epoch, key)
            for key, value in of_stages(after[content], TRAINS[epoch]).items():
                assert not torch.equal(value, before[content][key]), (epoch, key)
        before = after


def test_stages_that_are_frozen_again_stay_where_they_are(runs: Path) -> None:
    moments = [dump(runs, 2, "back_and_forth", f"epoch{epoch}") for epoch in EPOCHS]
    for content in ("parameters", "buffers"):
        rested = [of_stages(moment[content], ["head", "stem"]) for moment in moments]
        assert_same_bits(rested[0], rested[1])
        assert_same_bits(rested[0], rested[2])
        for key, value in rested[3].items():
            assert not torch.equal(value, rested[0][key]), key


@pytest.mark.parametrize(
    ("world", "name", "checkpoint"),
    [*((1, *case) for case in RESUMED), *((2, *case) for case in RESUMED_ON_TWO)],
)
def test_a_resumed_run_ends_as_the_run_that_was_never_cut(
    runs: Path, world: int, name: str, checkpoint: str
) -> None:
    resumed = f"{name}@{checkpoint}"
    for epoch in EPOCHS:
        path = runs / f"world{world}" / resumed / f"epoch{epoch}-rank0.pt"
        if path.exists():
            assert_same_bits(torch.load(path), dump(runs, world, name, f"epoch{epoch}"))
    whole, rest = dump(runs, world, name, "end"), dump(runs, world, resumed, "end")
    assert_same_bits(rest["final"], whole["final"])
    assert 0 < len(rest["losses"]) < len(whole["losses"]) == 12
    assert rest["losses"] == whole["losses"][-len(rest["losses"]) :]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_evaluation_is_the_same_on_any_number_of_ranks(runs: Path, world: int) -> None:
    one = dump(runs, 1, "evaluate", "end")
    assert one["predictions"]["indices"].tolist() == list(range(37))
    assert 0 < one["test"]["test/top1"] < 1
    for rank in range(world):
        assert_same_bits(one, dump(runs, world, "evaluate", "end", rank))


@pytest.mark.skipif(not shutil.which("g++"), reason="the inductor backend needs a C++ compiler")
def test_compiling_for_real_changes_nothing_but_rounding(runs: Path, tmp_path: Path) -> None:
    _run(tmp_path, ["1:inductor"])
    for epoch in EPOCHS:
        plain = dump(runs, 1, "batchnorm", f"epoch{epoch}")
        compiled = dump(tmp_path, 1, "inductor", f"epoch{epoch}")
        assert compiled["trainable"] == plain["trainable"]
        assert compiled["parameters"].keys() == plain["parameters"].keys()
        for content in ("parameters", "buffers"):
            for key, value in plain[content].items():
                torch.testing.assert_close(compiled[content][key], value, atol=1e-4, rtol=1e-4)
