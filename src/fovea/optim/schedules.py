"""Learning-rate schedules: pure functions from the optimiser step to a factor on the base rate.

A factor is asked for at steps 0 .. total_steps - 1, counted in optimiser steps (not micro-batches)
over the whole run, so accumulation and the number of devices change nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fovea.errors import FoveaError
from fovea.optim.epochs import check_epochs, resolve_epochs, round_half_up


class Schedule(ABC):
    """A factor on the learning rate for every optimiser step."""

    @abstractmethod
    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor, usually in [0, 1], that the base rate has at ``step``.

        Args:
            step: optimiser step from 0. Beyond the end the last value holds.
            total_steps: optimiser steps in the run.
            steps_per_epoch: optimiser steps in an epoch.
        """

    @abstractmethod
    def describe(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return one line for the summary of a run, in steps and factors."""


@dataclass(frozen=True, kw_only=True)
class WarmupSchedule(Schedule):
    """A linear rise, then whatever the subclass does with the steps that are left.

    The rise is torch's ``LinearLR``: at step ``s`` of ``W`` the factor is
    ``warmup_start_factor + (1 - warmup_start_factor) * s / W`` (Goyal et al. 2017, section 2.2).

    Attributes:
        warmup_epochs: length of the rise; fractions and shares of the run ("5%") are welcome. A
            rise longer than the run is cut to the run.
        warmup_steps: the same in optimiser steps; set, it stands instead of ``warmup_epochs``.
        warmup_start_factor: factor of step 0.
        warmup_inclusive: the last step of the rise has factor 1, ``s / (W - 1)``, as with
            ``numpy.linspace`` in ConvNeXt's ``cosine_scheduler``.
        by_epoch: the factor changes between epochs only: each step has that of the first step of
            its epoch, as in the references of torchvision and timm.
    """

    warmup_epochs: float | str = 0.0
    warmup_steps: int | None = None
    warmup_start_factor: float = 0.01
    warmup_inclusive: bool = False
    by_epoch: bool = False

    def __post_init__(self) -> None:
        check_epochs(self.warmup_epochs, "scheduler.warmup_epochs")
        _check_range("warmup_start_factor", self.warmup_start_factor, 0, 1)
        if self.warmup_steps is not None:
            _check_range("warmup_steps", self.warmup_steps, 0, math.inf)

    def warmup(self, total_steps: int, steps_per_epoch: int) -> int:
        """Return the length of the rise in optimiser steps, at most ``total_steps``."""
        if self.warmup_steps is not None:
            return min(self.warmup_steps, total_steps)
        epochs = resolve_epochs(self.warmup_epochs, total_steps / steps_per_epoch)
        return min(round_half_up(epochs * steps_per_epoch), total_steps)

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor at ``step``; see `Schedule.factor`."""
        rise = self.warmup(total_steps, steps_per_epoch)
        if self.by_epoch:
            step -= step % steps_per_epoch
        if step < rise:
            passed = step / max(rise - self.warmup_inclusive, 1)
            return self.warmup_start_factor + (1 - self.warmup_start_factor) * passed
        return self.after_warmup(min(step, total_steps), rise, total_steps, steps_per_epoch)

    def describe(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return one line for the summary of a run."""
        rise = self.warmup(total_steps, steps_per_epoch)
        shape = self.describe_shape(total_steps, steps_per_epoch)
        if self.by_epoch:
            shape += ", changing between epochs only"
        return f"{rise} steps of warm-up, then {shape}" if rise else shape

    @abstractmethod
    def after_warmup(self, step: int, rise: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor at ``rise <= step <= total_steps``, where the rise is over."""

    @abstractmethod
    def describe_shape(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return what follows the warm-up, in a few words."""


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule(WarmupSchedule):
    """The base rate to the end."""

    def after_warmup(self, step: int, rise: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return 1."""
        return 1.0

    def describe_shape(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return "constant"."""
        return "constant"


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(WarmupSchedule):
    """Half a cosine from 1 down to ``final_factor``, which it reaches as the run ends.

    Source: Loshchilov and Hutter 2017 (SGDR), eq. 5 without restarts; equal to torch's
    ``CosineAnnealingLR(T_max=total_steps - warm-up)``, and with ``from_start`` to timm's
    ``CosineLRScheduler(t_initial=total_steps)``, whose ``warmup_prefix`` is off by default.

    Attributes:
        final_factor: where it ends.
        from_start: the curve begins with the run, and the warm-up stands in place of its first
            part; else it begins, from 1, where the warm-up ends.
    """

    final_factor: float = 0.0
    from_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("final_factor", self.final_factor, 0, 1)

    def after_warmup(self, step: int, rise: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return ``final + (1 - final) * (1 + cos(pi * t)) / 2``, t from 0 to 1."""
        begin = 0 if self.from_start else rise
        passed = (step - begin) / max(total_steps - begin, 1)
        return self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * passed)) / 2

    def describe_shape(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return the end of the curve."""
        return f"cosine to {self.final_factor:g} of it at step {total_steps}"


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(WarmupSchedule):
    """A straight line from 1 to ``final_factor``; torch's ``LinearLR`` after the warm-up."""

    final_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("final_factor", self.final_factor, 0, 1)

    def after_warmup(self, step: int, rise: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return ``1 - (1 - final) * t``, t from 0 to 1."""
        return 1 - (1 - self.final_factor) * (step - rise) / max(total_steps - rise, 1)

    def describe_shape(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return the end of the line."""
        return f"linear to {self.final_factor:g} of it at step {total_steps}"


@dataclass(frozen=True, kw_only=True)
class StepSchedule(WarmupSchedule):
    """Multiplied by ``gamma`` at each milestone, as torch's ``MultiStepLR`` called every epoch.

    Attributes:
        milestones: epochs or shares of the run, ascending, counted from the start of the run,
            warm-up included.
        gamma: factor at each of them.
    """

    milestones: Sequence[float | str]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("gamma", self.gamma, 0, 1)
        if isinstance(self.milestones, str) or not isinstance(self.milestones, Sequence):
            raise FoveaError(
                f"scheduler.milestones is {self.milestones!r}: it takes a list of epochs or shares "
                'of the run, e.g. [30, 60] or ["50%", "75%"].'
            )
        for number, milestone in enumerate(self.milestones):
            check_epochs(milestone, f"scheduler.milestones[{number}]")

    def after_warmup(self, step: int, rise: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return ``gamma`` to the power of the milestones passed."""
        return self.gamma ** bisect_right(self._steps(total_steps, steps_per_epoch), step)

    def describe_shape(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return the steps at which the rate falls."""
        steps = ", ".join(map(str, self._steps(total_steps, steps_per_epoch)))
        return f"times {self.gamma:g} at steps {steps}" if steps else "constant"

    def _steps(self, total_steps: int, steps_per_epoch: int) -> list[int]:
        max_epochs = total_steps / steps_per_epoch
        return sorted(
            round_half_up(resolve_epochs(milestone, max_epochs) * steps_per_epoch)
            for milestone in self.milestones
        )


@dataclass(frozen=True, kw_only=True)
class OneCycleSchedule(Schedule):
    """Up to the base rate and down again; the base rate is the peak.

    Source: Smith and Topin 2018 (super-convergence); equal to torch's
    ``OneCycleLR(max_lr=base, pct_start=peak, div_factor=1/start_factor,
    final_div_factor=start_factor/final_factor, cycle_momentum=False)``.

    Attributes:
        peak: share of the run that has passed at the peak, in (0, 1).
        start_factor: factor of the first step.
        final_factor: factor of the last step.
        anneal: shape of both flanks.
    """

    peak: float = 0.3
    start_factor: float = 0.04
    final_factor: float = 4e-6
    anneal: Literal["cos", "linear"] = "cos"

    def __post_init__(self) -> None:
        if not 0 < self.peak < 1:
            raise FoveaError(f"scheduler.peak is {self.peak!r}: it takes a share between 0 and 1.")
        _check_range("start_factor", self.start_factor, 0, 1)
        _check_range("final_factor", self.final_factor, 0, 1)
        if self.anneal not in ("cos", "linear"):
            raise FoveaError(f"scheduler.anneal is {self.anneal!r}: it takes cos or linear.")

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor at ``step``; see `Schedule.factor`."""
        last = total_steps - 1
        top = self.peak * total_steps - 1
        step = min(step, last)
        if step <= top:
            return self._between(self.start_factor, 1.0, step / top if top > 0 else 1.0)
        # A run of so few steps that the peak lies before its first one begins on the way down.
        return self._between(1.0, self.final_factor, (step - top) / (last - top))

    def describe(self, total_steps: int, steps_per_epoch: int) -> str:
        """Return one line for the summary of a run."""
        top = max(round_half_up(self.peak * total_steps) - 1, 0)
        return f"one cycle, peak at step {top}, {self.final_factor:g} of it at step {total_steps}"

    def _between(self, start: float, end: float, passed: float) -> float:
        if self.anneal == "linear":
            return start + (end - start) * passed
        return end + (start - end) * (1 + math.cos(math.pi * passed)) / 2


def _check_range(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        wanted = f"from {low:g} to {high:g}" if high < math.inf else f">= {low:g}"
        raise FoveaError(f"scheduler.{name} is {value!r}: it takes a number {wanted}.")
