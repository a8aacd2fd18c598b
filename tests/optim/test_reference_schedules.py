"""Schedules that change between epochs, and those of ffcv and MAE, against the references' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from fovea.optim import CosineSchedule, LinearSchedule

STEPS = 7
"""In an epoch."""


def rates(schedule, epochs):
    total = epochs * STEPS
    return [schedule.factor(step, total, STEPS) for step in range(total)]


def sgd(lr=1.0):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def test_torchvisions_warm_up_and_cosine_step_once_an_epoch():
    optimizer = sgd()
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=5)
    reference = SequentialLR(optimizer, [warmup, CosineAnnealingLR(optimizer, T_max=15)], [5])
    expected = []
    for _ in range(20):
        expected += [optimizer.param_groups[0]["lr"]] * STEPS
        optimizer.step()
        reference.step()
    schedule = CosineSchedule(warmup_epochs=5, warmup_start_factor=0.01, by_epoch=True)
    assert rates(schedule, 20) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_timms_cosine_runs_under_its_warm_up_and_steps_once_an_epoch():
    optimizer = sgd(0.005)
    reference = CosineLRScheduler(
        optimizer, t_initial=30, lr_min=1e-6, warmup_t=5, warmup_lr_init=1e-4, t_in_epochs=True
    )
    expected = []
    for epoch in range(30):
        reference.step(epoch)
        expected += [optimizer.param_groups[0]["lr"] / 0.005] * STEPS
    schedule = CosineSchedule(
        warmup_epochs=5, warmup_start_factor=1e-4 / 0.005, final_factor=1e-6 / 0.005,
        by_epoch=True, from_start=True,
    )  # fmt: skip
    assert rates(schedule, 30) == pytest.approx(expected, rel=1e-9)


def test_ffcvs_rate_is_interpolated_within_each_epoch():
    def of_epoch(epoch):
        return np.interp([epoch], [0, 2, 16], [1e-4, 1, 0])[0]

    expected = [
        rate
        for epoch in range(16)
        for rate in np.interp(np.arange(STEPS), [0, STEPS], [of_epoch(epoch), of_epoch(epoch + 1)])
    ]
    schedule = LinearSchedule(warmup_epochs=2, warmup_start_factor=1e-4)
    assert rates(schedule, 16) == pytest.approx(expected, rel=1e-9)


def test_convnexts_warm_up_ends_at_the_full_rate():
    """``cosine_scheduler`` of its utils.py: linspace, then the cosine from the full rate again."""
    left = 5 * STEPS
    fall = [0.1 + 0.5 * 0.9 * (1 + math.cos(math.pi * i / left)) for i in range(left)]
    schedule = CosineSchedule(
        warmup_epochs=2, warmup_start_factor=0, warmup_inclusive=True, final_factor=0.1
    )
    assert rates(schedule, 7) == pytest.approx([*np.linspace(0, 1, 2 * STEPS), *fall], rel=1e-9)
    one = CosineSchedule(warmup_steps=1, warmup_start_factor=0, warmup_inclusive=True)
    assert [one.factor(step, 9, 9) for step in (0, 1)] == [0, 1]


def test_maes_rate_follows_fractions_of_epochs():
    lr, least, warmup, epochs = 2e-3, 1e-6, 5, 12
    expected = []
    for step in range(epochs * STEPS):
        epoch = step / STEPS
        if epoch < warmup:
            rate = lr * epoch / warmup
        else:
            passed = (epoch - warmup) / (epochs - warmup)
            rate = least + (lr - least) * 0.5 * (1 + math.cos(math.pi * passed))
        expected.append(rate / lr)
    schedule = CosineSchedule(warmup_epochs=5, warmup_start_factor=0, final_factor=least / lr)
    assert rates(schedule, epochs) == pytest.approx(expected, rel=1e-9)
    assert "between epochs" not in schedule.describe(84, 7)
    assert "between epochs" in CosineSchedule(by_epoch=True).describe(84, 7)
