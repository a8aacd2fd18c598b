"""Learning-rate schedules against torch's and timm's own, step by step."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch.optim import lr_scheduler as torch_schedules

from fovea.errors import FoveaError
from fovea.optim import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    OneCycleSchedule,
    Schedule,
    StepSchedule,
)

STEPS, EPOCH = 60, 6  # ten epochs of six steps


def factors(schedule: Schedule, steps: int = STEPS, epoch: int = EPOCH) -> list[float]:
    return [schedule.factor(step, steps, epoch) for step in range(steps)]


def torch_factors(make: partial, steps: int = STEPS) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs() -> None:
    expected = torch_factors(partial(torch_schedules.CosineAnnealingLR, T_max=STEPS, eta_min=0.1))
    assert factors(CosineSchedule(final_factor=0.1)) == pytest.approx(expected, abs=1e-9)


def test_cosine_with_warmup_is_timms() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    timm_schedule = CosineLRScheduler(
        optimizer, t_initial=STEPS - 12, lr_min=0.05, warmup_t=12, warmup_lr_init=0.01,
        warmup_prefix=True, t_in_epochs=False,
    )  # fmt: skip
    expected = []
    for step in range(STEPS):
        timm_schedule.step_update(step)
        expected.append(optimizer.param_groups[0]["lr"])
    schedule = CosineSchedule(warmup_epochs=2, warmup_start_factor=0.01, final_factor=0.05)
    assert factors(schedule) == pytest.approx(expected, abs=1e-9)


def test_linear_after_warmup_is_torchs_two_lines_in_sequence() -> None:
    def make(optimizer: torch.optim.Optimizer) -> torch_schedules.LRScheduler:
        rise = torch_schedules.LinearLR(optimizer, start_factor=0.2, total_iters=10)
        fall = torch_schedules.LinearLR(optimizer, 1.0, end_factor=0.5, total_iters=50)
        return torch_schedules.SequentialLR(optimizer, [rise, fall], milestones=[10])

    schedule = LinearSchedule(warmup_steps=10, warmup_start_factor=0.2, final_factor=0.5)
    assert factors(schedule) == pytest.approx(torch_factors(make), abs=1e-9)


def test_step_is_torchs_steplr_and_multisteplr_by_epoch() -> None:
    by_size = torch_factors(partial(torch_schedules.StepLR, step_size=3, gamma=0.3), steps=10)
    got = factors(StepSchedule(milestones=[3, 6, 9], gamma=0.3))[::EPOCH]
    assert got == pytest.approx(by_size)
    by_list = torch_factors(partial(torch_schedules.MultiStepLR, milestones=[5, 8]), steps=10)
    assert factors(StepSchedule(milestones=["50%", "80%"]))[::EPOCH] == pytest.approx(by_list)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(("steps", "peak"), [(60, 0.3), (7, 0.5), (1000, 0.25)])
def test_onecycle_is_torchs(anneal: str, steps: int, peak: float) -> None:
    expected = torch_factors(
        partial(
            torch_schedules.OneCycleLR, max_lr=1.0, total_steps=steps + 1, pct_start=peak,
            anneal_strategy=anneal, div_factor=25, final_div_factor=1e4, cycle_momentum=False,
        ),
        steps + 1,
    )  # fmt: skip
    schedule = OneCycleSchedule(peak=peak, anneal=anneal)  # type: ignore[arg-type]
    assert factors(schedule, steps + 1) == pytest.approx(expected, abs=1e-9)


def test_constant_rises_and_stays() -> None:
    got = factors(ConstantSchedule(warmup_steps=4, warmup_start_factor=0.0), steps=8)
    assert got == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_warmup_may_be_a_share_of_the_run_or_a_fraction_of_an_epoch() -> None:
    assert CosineSchedule(warmup_epochs="5%").warmup(600, 20) == 30
    assert CosineSchedule(warmup_epochs=0.5).warmup(600, 20) == 10
    assert CosineSchedule(warmup_epochs=3, warmup_steps=7).warmup(600, 20) == 7


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantSchedule(warmup_epochs=5),
        CosineSchedule(warmup_epochs=5),
        LinearSchedule(warmup_epochs=5),
        StepSchedule(milestones=[5], warmup_epochs=5),
        OneCycleSchedule(),
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_runs_of_a_few_steps_have_finite_rates_up_to_one(schedule: Schedule, steps: int) -> None:
    got = [schedule.factor(step, steps, 1) for step in range(steps + 2)]
    assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in got)
    assert max(got) > 0
    assert schedule.describe(steps, 1)


@pytest.mark.parametrize("first", [CosineSchedule(), LinearSchedule(), OneCycleSchedule()])
def test_the_length_of_an_epoch_does_not_matter_without_epochs_in_the_settings(
    first: Schedule,
) -> None:
    assert factors(first, epoch=6) == factors(first, epoch=1)


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        (lambda: CosineSchedule(final_factor="0.1"), "final_factor", "'0.1'"),  # type: ignore[arg-type]
        (lambda: CosineSchedule(warmup_epochs="5"), "warmup_epochs", "'5'"),
        (lambda: CosineSchedule(warmup_epochs="120%"), "warmup_epochs", "'120%'"),
        (lambda: LinearSchedule(warmup_steps=-1), "warmup_steps", "-1"),
        (lambda: ConstantSchedule(warmup_start_factor=2), "warmup_start_factor", "2"),
        (lambda: StepSchedule(milestones=[3, "x"]), r"milestones\[1\]", "'x'"),
        (lambda: StepSchedule(milestones="50%"), "milestones", "'50%'"),
        (lambda: StepSchedule(milestones=[1], gamma=True), "gamma", "True"),
        (lambda: OneCycleSchedule(peak=30), "peak", "30"),
        (lambda: OneCycleSchedule(anneal="cosine"), "anneal", "'cosine'"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_setting_is_named_with_its_value(make: partial, key: str, value: str) -> None:
    with pytest.raises(FoveaError, match=rf"scheduler\.{key} is {value}: it takes"):
        make()
