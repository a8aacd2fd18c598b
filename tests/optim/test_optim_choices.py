"""Every choice in conf/{optimizer,scheduler,freeze} and callbacks/ema builds and does its work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from fovea.optim import AveragedWeights, FreezeSchedule, Schedule, param_groups

CONF = Path(__file__).parents[2] / "conf"
PARTS = {
    f"stage{i}": {f"backbone.net.{i}.weight": 4, f"backbone.net.{i}.bias": 2} for i in range(5)
} | {"head": {"head.weight": 4, "head.bias": 2}}


def choices(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_"))


def build(group: str, choice: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+{group}={choice}"])
    return instantiate(cfg[group])


def test_the_choices_are_these() -> None:
    assert choices("optimizer") == ["adamw", "lamb", "lars", "sgd"]
    assert choices("scheduler") == ["constant", "cosine", "linear", "onecycle", "step"]
    assert choices("freeze") == ["gradual", "head_only", "lp_ft", "none"]


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "freeze", "task", "callbacks"])
def test_the_first_line_says_what_a_choice_is(group: str) -> None:
    files = list((CONF / group).glob("*.yaml"))
    assert files
    for file in files:
        first = file.read_text().splitlines()[0]
        assert first.startswith("# "), file
        assert len(first) <= 100, file


@pytest.mark.parametrize("choice", choices("optimizer"))
def test_optimizers_move_weights_and_spare_biases_the_decay(choice: str) -> None:
    make = build("optimizer", choice)
    net = nn.ModuleDict({"head": nn.Linear(2, 2)})
    names = {"head": ["head.weight", "head.bias"]}
    decay = make.keywords["weight_decay"]
    groups = param_groups(net.named_parameters(), names, make.keywords["lr"], decay)
    optimizer = make(groups)
    assert (decay > 0) == (choice != "lars")  # a linear probe's
    assert [group["weight_decay"] for group in optimizer.param_groups] == [decay, 0.0]
    before = [parameter.detach().clone() for parameter in net.parameters()]
    net["head"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("choice", choices("scheduler"))
def test_schedules_reach_the_full_rate_and_all_but_constant_fall(choice: str) -> None:
    schedule = build("scheduler", choice)
    assert isinstance(schedule, Schedule)
    factors = [schedule.factor(step, 200, 10) for step in range(200)]
    assert max(factors) == pytest.approx(1, abs=1e-3)
    assert (factors[-1] < 0.02) == (choice != "constant")


@pytest.mark.parametrize("choice", choices("freeze"))
def test_freeze_presets_train_the_head_first_and_say_so(choice: str) -> None:
    schedule = build("freeze", choice)
    assert isinstance(schedule, FreezeSchedule)
    bound = schedule.bind(PARTS, 20)
    counts = [len(bound.trainable(epoch)) for epoch in range(20)]
    assert "head.weight" in bound.trainable(0)
    assert counts == sorted(counts)
    expected = {
        "none": {12}, "head_only": {2}, "lp_ft": {2, 12}, "gradual": {2, 4, 8, 12},
    }  # fmt: skip
    assert set(counts) == expected[choice]
    for epochs in (1, 2, 3):
        assert schedule.bind(PARTS, epochs).trainable(0)


@pytest.mark.parametrize("choice", choices("freeze"))
@pytest.mark.parametrize("stages", [1, 2, 14])
def test_freeze_presets_fit_backbones_of_few_and_many_stages(choice: str, stages: int) -> None:
    parts = {f"stage{i}": {f"backbone.{i}.weight": 1} for i in range(stages)}
    bound = build("freeze", choice).bind(parts | {"head": {"head.weight": 1}}, 20)
    assert (len(bound.trainable(19)) == stages + 1) == (choice != "head_only")


def test_ema() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=["+callbacks=ema"])
    assert isinstance(instantiate(cfg.callbacks.ema), AveragedWeights)
