"""Freeze schedules as people write them: what they mean, and what they say when they are wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.optim import Lamb
from torch import nn

from fovea.errors import FoveaError
from fovea.optim import (
    CosineSchedule,
    FreezeSchedule,
    LearningRates,
    param_groups,
    restart_untouched_groups,
)

PARTS = {
    "stem": {"backbone.net.conv1.weight": 100},
    "layer1": {"backbone.net.layer1.weight": 200, "backbone.net.layer1.bias": 20},
    "layer2": {"backbone.net.layer2.weight": 400, "backbone.net.layer2.bias": 20},
    "head": {"head.weight": 50, "head.bias": 5},
}
EVERYTHING = [name for names in PARTS.values() for name in names]


def phase(epoch: Any, /, **stages: Any) -> dict[str, Any]:
    rest = stages.pop("rest", None)
    return {"epoch": epoch, "stages": stages | ({"*": rest} if rest is not None else {})}


def trainable(stages: dict[Any, Any]) -> list[str]:
    bound = FreezeSchedule([{"epoch": 0, "stages": stages}]).bind(PARTS, 10)
    return [name for name in EVERYTHING if name in bound.trainable(0)]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({"head": 1.0, "*": "frozen"}, ["head"]),
        ({0: 1.0, "*": "frozen"}, ["stem"]),
        ({"0": 1.0, "*": "frozen"}, ["stem"]),
        ({-1: 1.0, "*": "frozen"}, ["layer2"]),
        ({"last 2": 1.0, "*": "frozen"}, ["layer1", "layer2"]),
        ({"last 9": 1.0, "*": "frozen"}, ["stem", "layer1", "layer2"]),
        ({"last 34%": 1.0, "*": "frozen"}, ["layer1", "layer2"]),  # 1.02 stages, rounded up
        ({"last 33%": 1.0, "*": "frozen"}, ["layer2"]),
        ({"layer*": 1.0, "*": "frozen"}, ["layer1", "layer2"]),
        ({"layer[1]": "frozen", "*": 1.0}, ["stem", "layer2", "head"]),
        ({"stem": "frozen", "layer1": "frozen", "layer2": 2, "head": 1}, ["layer2", "head"]),
    ],
)
def test_keys_name_stages(stages: dict[Any, Any], expected: list[str]) -> None:
    assert trainable(stages) == [name for stage in expected for name in PARTS[stage]]


def test_keys_may_be_patterns_over_parameter_names_and_the_first_match_wins() -> None:
    assert trainable({"backbone.net.layer2.*": 1.0, "*": "frozen"}) == list(PARTS["layer2"])
    assert trainable({"*.bias": 1.0, "*": "frozen"}) == [n for n in EVERYTHING if "bias" in n]
    bound = FreezeSchedule([phase(0, **{"*.bias": "frozen", "head": 0.5, "rest": 2})])
    scales = bound.bind(PARTS, 1).scales(0)
    assert scales["head.bias"] is None
    assert scales["head.weight"] == 0.5
    assert scales["backbone.net.layer1.weight"] == 2


def test_phases_follow_each_other_by_epochs_and_shares_of_the_run() -> None:
    schedule = FreezeSchedule(
        [
            phase(0, head=1.0, rest="frozen"),
            phase("25%", head=0.5, layer2=0.1, rest="frozen"),
            phase(8, rest=0.01),
        ]
    )
    bound = schedule.bind(PARTS, 10)
    assert bound.starts == [0, 3, 8]  # 2.5 is rounded up
    assert [bound.phase(epoch) for epoch in range(10)] == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert bound.scales(7)["head.weight"] == 0.5
    assert bound.scales(8)["head.weight"] == 0.01
    assert bound.changes
    assert bound.histories()["backbone.net.layer2.bias"] == (None, 0.1, 0.01)


def test_short_runs_keep_shares_apart_and_tell_what_is_not_reached() -> None:
    schedule = FreezeSchedule(
        [
            phase(0, head=1.0, rest="frozen"),
            phase("20%", layer2=1.0, head=1.0, rest="frozen"),
            phase("40%", rest=1.0),
        ]
    )
    assert schedule.bind(PARTS, 100).starts == [0, 20, 40]
    assert schedule.bind(PARTS, 3).starts == [0, 1, 2]
    one = schedule.bind(PARTS, 1)
    assert one.unreached() == [1, 2]
    assert not one.changes
    assert "not reached" in one.table()[1][0]


def test_only_a_change_of_what_trains_counts_as_a_change() -> None:
    assert not FreezeSchedule([phase(0, rest=1.0), phase(5, rest=0.1)]).bind(PARTS, 10).changes


def test_the_table_says_epochs_stages_scales_and_counts() -> None:
    table = (
        FreezeSchedule(
            [phase(0, head=1.0, rest="frozen"), phase(1, **{"*.bias": "frozen", "rest": 0.1})]
        )
        .bind(PARTS, 5)
        .table()
    )
    assert table == [
        ("epoch 0", "stem..layer2 frozen, head x1; 55 of 795 parameters train"),
        ("epochs 1-4", "stem x0.1, layer1..layer2 mixed, head mixed; 750 of 795 parameters train"),
    ]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], r"freeze\.phases is \[\]: it takes a list"),
        ("gradual", "it takes a list of phases"),
        ([{"epoch": 0}], r"phases\[0\] has the keys \['epoch'\]: it takes exactly `epoch` and"),
        ([phase(0, rest=1) | {"lr": 1}], "takes exactly `epoch` and `stages`"),
        ([phase(1, rest=1)], r"phases\[0\]\.epoch is 1: the first phase starts the run, write 0"),
        ([phase(0, rest=1), phase(0, rest=1)], r"phases\[1\]\.epoch is 0.*must ascend"),
        ([phase(0, rest=1), phase("5%", rest=1), phase("5%", rest=1)], "must ascend"),
        ([phase(0, rest=1), phase("5", rest=1)], r'phases\[1\]\.epoch is \'5\'.*"20%"'),
        ([phase(0, rest=1), phase(1.5, rest=1)], "begin at whole epochs"),
        ([phase(0, rest=1), phase(-1, rest=1)], "a number of epochs >= 0"),
        ([phase(0, head=1, rest=0)], r"phases\[0\]\.stages\.\* is 0: write `frozen`"),
        ([phase(0, rest=-1)], "a learning-rate scale > 0, or `frozen`"),
        ([phase(0, rest="0.1")], "is '0.1': it takes a learning-rate scale"),
        ([phase(0, rest=True)], "is True: it takes"),
        ([phase(0, rest="frozen")], "everything is frozen"),
        ([{"epoch": 0, "stages": {}}], "it takes a map such as"),
    ],
)
def test_mistakes_that_need_no_network_to_be_seen(phases: Any, message: str) -> None:
    with pytest.raises(FoveaError, match=message):
        FreezeSchedule(phases)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            {"layr2": 1.0, "*": "frozen"},
            r"layr2 matches no stage.*Did you mean 'layer2'\?.*stem",
        ),
        ({7: 1.0, "*": "frozen"}, r"stages\.7 matches no stage.*0 \(stem\) to -1"),
        ({"last 0": 1.0, "*": "frozen"}, "last 0 matches no stage"),
        ({"backbone.net.layer3.*": 1.0, "*": "frozen"}, "matches no stage and no parameter"),
        ({"head": 1.0, "layer2": 1.0}, "says nothing about stem, layer1"),
        ({"*.bias": 1.0}, "says nothing about stem, layer1, layer2, head"),
        ({"*": 1.0, "head": 2.0}, r"head decides nothing: '\*' before it takes all it matches"),
        ({"layer2": 1.0, -1: 0.1, "*": "frozen"}, r"-1 decides nothing: 'layer2' before it"),
    ],
)
def test_mistakes_that_show_with_the_network(stages: dict[Any, Any], message: str) -> None:
    schedule = FreezeSchedule([{"epoch": 0, "stages": stages}])
    with pytest.raises(FoveaError, match=message):
        schedule.bind(PARTS, 10)


def test_a_share_before_an_epoch_that_it_reaches_is_named() -> None:
    schedule = FreezeSchedule([phase(0, rest=1), phase("50%", rest=1), phase(5, rest=1)])
    assert schedule.bind(PARTS, 8).starts == [0, 4, 5]
    with pytest.raises(FoveaError, match=r"phases\[2\]\.epoch is 5, and the phase before.* 10"):
        schedule.bind(PARTS, 20)


def test_a_catch_all_with_nothing_left_to_catch_is_no_mistake() -> None:
    assert trainable({"last 100%": 1.0, "head": 1.0, "*": "frozen"}) == EVERYTHING


def test_learning_rates_are_base_times_phase_times_schedule() -> None:
    parameters = {name: nn.Parameter(torch.zeros(2, 2)) for name in EVERYTHING}
    freeze = FreezeSchedule([phase(0, head=1.0, rest="frozen"), phase(2, head=0.5, rest=0.1)]).bind(
        PARTS, 4
    )
    groups = param_groups(
        parameters.items(), PARTS, lr=0.3, weight_decay=0, split_by=freeze.histories()
    )
    optimizer = torch.optim.SGD(groups, lr=0.3)
    schedule = CosineSchedule(warmup_steps=1)
    rates = LearningRates(schedule, freeze)
    scheduler = rates.scheduler(optimizer)
    rates.start(scheduler, total_steps=12, steps_per_epoch=3)
    for step in range(12):
        epoch = step // 3
        for group in optimizer.param_groups:
            scale = freeze.scales(epoch)[group["param_names"][0]] or 0.0
            assert group["lr"] == pytest.approx(0.3 * scale * schedule.factor(step, 12, 3))
        optimizer.step()
        scheduler.step()
    state = scheduler.state_dict()
    assert all(not isinstance(value, nn.Module | FreezeSchedule) for value in state.values())


def test_a_longer_run_changes_the_rates_of_the_steps_that_are_left() -> None:
    parameter = {"head.weight": nn.Parameter(torch.zeros(2, 2))}
    parts = {"head": {"head.weight": 4}}
    freeze = FreezeSchedule([phase(0, rest=1.0)]).bind(parts, 4)
    groups = param_groups(parameter.items(), parts, lr=1.0, weight_decay=0)
    optimizer = torch.optim.SGD(groups, lr=1.0)
    rates = LearningRates(CosineSchedule(), freeze)
    scheduler = rates.scheduler(optimizer)
    rates.start(scheduler, 10, 1)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    rates.start(scheduler, 20, 1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(CosineSchedule().factor(5, 20, 1))
    assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]]


def test_lamb_takes_the_same_first_step_in_a_thawed_group_as_in_a_fresh_one() -> None:
    def step(frozen_steps: int, restart: bool) -> torch.Tensor:
        torch.manual_seed(0)
        frozen, other = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))
        optimizer = Lamb([{"params": [frozen]}, {"params": [other]}], lr=0.1, max_grad_norm=None)
        for _ in range(frozen_steps):
            other.grad = torch.ones(4, 4)
            optimizer.step()
            if restart:
                restart_untouched_groups(optimizer)
        frozen.grad, other.grad = torch.full((4, 4), 0.5), None
        optimizer.step()
        return frozen.detach() / frozen.detach().norm()

    assert torch.equal(step(20, restart=True), step(0, restart=True))
    assert not torch.equal(step(20, restart=False), step(0, restart=False))
