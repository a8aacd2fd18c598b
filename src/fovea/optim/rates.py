"""Learning rates of parameter groups: base rate, times the phase's scale, times the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fovea.optim.freeze import BoundFreeze
from fovea.optim.schedules import Schedule


def count_steps(trainer: lightning.Trainer) -> tuple[int, int]:
    """Return (optimiser steps in the run, in an epoch), true under accumulation and on all ranks.

    Lightning must have set up its loaders, as in ``on_train_start``. Its own
    ``estimated_stepping_batches`` would set them up, and those of a resumed run too early.
    """
    steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    total_steps = steps_in_run(trainer.max_epochs or 0, steps_per_epoch, trainer.max_steps)
    return total_steps, steps_per_epoch


def steps_in_run(max_epochs: int, steps_per_epoch: int, max_steps: int) -> int:
    """Return the optimiser steps of a run; ``max_steps`` of -1 is no limit."""
    total_steps = max_epochs * steps_per_epoch
    return min(total_steps, max_steps) if max_steps >= 0 else total_steps


class LearningRates:
    """Factors on the base rate of each group, for ``LambdaLR``, one call an optimiser step.

    The phase's scale is part of the factor: written into a group's ``lr`` it would be overwritten
    by the next step of the scheduler. Until `start` has said how long the run is, factors are 0.
    """

    def __init__(self, schedule: Schedule, freeze: BoundFreeze) -> None:
        self._schedule = schedule
        self._freeze = freeze
        self._total_steps = 0
        self._steps_per_epoch = 0

    def scheduler(self, optimizer: Optimizer) -> LambdaLR:
        """Return the scheduler; every group must name its parameters (see `param_groups`).

        Its state holds numbers only, so a checkpoint of it loads with ``weights_only``.
        """
        factors = [self._factor_of(group["param_names"][0]) for group in optimizer.param_groups]
        return LambdaLR(optimizer, factors)

    def start(self, scheduler: LambdaLR, total_steps: int, steps_per_epoch: int) -> None:
        """Take the length of the run, in optimiser steps, and set the rates of the current step."""
        self._total_steps, self._steps_per_epoch = total_steps, steps_per_epoch
        groups = scheduler.optimizer.param_groups
        for group, base, factor in zip(
            groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in groups]

    def factor(self, step: int) -> float:
        """Return the schedule's factor at ``step``, 0 before `start`; no phase's scale in it."""
        if not self._total_steps:
            return 0.0
        return self._schedule.factor(step, self._total_steps, self._steps_per_epoch)

    def _factor_of(self, parameter: str) -> Callable[[int], float]:
        def factor(step: int) -> float:
            if not self._total_steps:
                return 0.0  # the phase is not known either
            scale = self._freeze.scales(step // self._steps_per_epoch)[parameter]
            return 0.0 if scale is None else scale * self.factor(step)

        return factor
