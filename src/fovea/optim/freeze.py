"""The freeze schedule: which parameters train from which epoch, and at which learning-rate scale.

Everything here is a pure function of the epoch, so it cannot matter how a run came to be in that
epoch: straight through, or resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from fovea.errors import FoveaError
from fovea.optim.epochs import resolve_epochs, round_half_up
from fovea.optim.freeze_rules import (
    FROZEN,
    HEAD,
    Parts,
    check_ascending,
    match_rules,
    read_phase,
)


class FreezeSchedule:
    """Phases of training, checked as far as they can be without a network.

    Each phase says from which ``epoch`` it holds (a number, or a share of the run such as "20%",
    rounded to a whole epoch, at least one after the phase before) and what its ``stages`` do::

        phases:
          - {epoch: 0, stages: {head: 1.0, "*": frozen}}
          - {epoch: 20%, stages: {head: 1.0, -1: 0.1, "*": frozen}}

    A key of ``stages`` is the name of a stage, its number (0 the stem, -1 the last stage of the
    backbone), ``"last 2"`` or ``"last 50%"`` (of the backbone's stages, rounded up), ``"*"``, or a
    pattern with ``*?[]`` over stage names and full parameter names
    (``"backbone.net.layer4.*"``). The first key that matches a parameter decides. A value is a
    scale > 0 on the learning rate, or ``frozen``.

    Args:
        phases: at least one, epochs ascending, the first from epoch 0.

    Raises:
        FoveaError: names the entry that is wrong and what to write instead.
    """

    def __init__(self, phases: Sequence[Mapping[str, Any]]) -> None:
        if isinstance(phases, str | Mapping) or not isinstance(phases, Sequence) or not phases:
            raise FoveaError(
                f"freeze.phases is {phases!r}: it takes a list of phases, e.g. "
                '[{epoch: 0, stages: {head: 1.0, "*": frozen}}].'
            )
        self._phases = [read_phase(phase, number) for number, phase in enumerate(phases)]
        first = self._phases[0].epoch
        if resolve_epochs(first, 1) != 0:
            raise FoveaError(
                f"freeze.phases[0].epoch is {first!r}: the first phase starts the run, write 0."
            )
        check_ascending([phase.epoch for phase in self._phases])

    def starts(self, max_epochs: int) -> list[int]:
        """Return the first epoch of each phase in a run of ``max_epochs``."""
        starts: list[int] = []
        for phase in self._phases:
            start = round_half_up(resolve_epochs(phase.epoch, max_epochs))
            shared = isinstance(phase.epoch, str) and bool(starts)
            starts.append(max(start, starts[-1] + 1) if shared else start)
        check_ascending(starts)
        return starts

    def bind(self, parts: Parts, max_epochs: int) -> BoundFreeze:
        """Return the schedule for one network and one length of run.

        Args:
            parts: the network's parameters by stage.
            max_epochs: what shares of the run refer to.

        Raises:
            FoveaError: a key matches nothing, is shadowed by the keys before it, stages are left
                uncovered, or nothing at all would train.
        """
        starts = self.starts(max_epochs)
        scales = [
            match_rules(phase.rules, parts, f"freeze.phases[{number}].stages")
            for number, phase in enumerate(self._phases)
        ]
        return BoundFreeze(parts, max_epochs, starts, scales)


class BoundFreeze:
    """A freeze schedule that knows the parameters and the length of the run.

    Attributes:
        starts: first epoch of each phase.
    """

    def __init__(
        self,
        parts: Parts,
        max_epochs: int,
        starts: list[int],
        scales: list[dict[str, float | None]],
    ) -> None:
        self.starts = starts
        self._parts = parts
        self._max_epochs = max_epochs
        self._scales = scales

    def phase(self, epoch: int) -> int:
        """Return the number of the phase that holds in ``epoch``."""
        return sum(start <= epoch for start in self.starts) - 1

    def scales(self, epoch: int) -> dict[str, float | None]:
        """Return for each parameter the learning-rate scale in ``epoch``, None where frozen."""
        return self._scales[self.phase(epoch)]

    def trainable(self, epoch: int) -> frozenset[str]:
        """Return the names of the parameters that train in ``epoch``."""
        return frozenset(name for name, scale in self.scales(epoch).items() if scale is not None)

    def histories(self) -> dict[str, tuple[float | None, ...]]:
        """Return for each parameter its scale in every phase: what a parameter group must share."""
        names = self._scales[0]
        return {name: tuple(scales[name] for scales in self._scales) for name in names}

    @property
    def changes(self) -> bool:
        """Whether the set of trainable parameters ever changes within the run."""
        reached = {start for start in self.starts if start < self._max_epochs} | {0}
        return len({self.trainable(start) for start in reached}) > 1

    def unreached(self) -> list[int]:
        """Return the numbers of the phases that begin only after the run has ended."""
        return [number for number, start in enumerate(self.starts) if start >= self._max_epochs]

    def table(self) -> list[tuple[str, str]]:
        """Return a row (epochs, what trains) for each phase, for printing."""
        rows = []
        ends = [*self.starts[1:], max(self._max_epochs, self.starts[-1] + 1)]
        for number, (start, end) in enumerate(zip(self.starts, ends, strict=True)):
            last = min(end, self._max_epochs) - 1
            span = f"epoch {start}" if last == start else f"epochs {start}-{last}"
            if start >= self._max_epochs:
                span = f"epoch {start} (not reached: the run has {self._max_epochs})"
            rows.append((span, self._row(self._scales[number])))
        return rows

    def _row(self, scales: dict[str, float | None]) -> str:
        texts = {
            stage: _summary(scales[name] for name in self._parts[stage]) for stage in self._parts
        }
        sizes = {name: size for stage in self._parts.values() for name, size in stage.items()}
        trained = sum(size for name, size in sizes.items() if scales[name] is not None)
        spans = ", ".join(f"{span} {text}" for span, text in _runs(texts))
        return f"{spans}; {trained:,} of {sum(sizes.values()):,} parameters train"


def _summary(scales: Iterable[float | None]) -> str:
    unique = set(scales)
    if len(unique) > 1:
        return "mixed"
    scale = unique.pop() if unique else None
    return FROZEN if scale is None else f"x{scale:g}"


def _runs(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (stages, text) with neighbours of equal text joined as ``first..last``."""
    runs: list[tuple[list[str], str]] = []
    for stage, text in texts.items():
        if runs and runs[-1][1] == text and stage != HEAD:
            runs[-1][0].append(stage)
        else:
            runs.append(([stage], text))
    return [(s[0] if len(s) == 1 else f"{s[0]}..{s[-1]}", text) for s, text in runs]


def restart_untouched_groups(optimizer: Optimizer) -> None:
    """Make groups that have never been trained count their steps from one when they are thawed.

    LAMB counts the steps of a group, also of a frozen one. With that count, the bias correction of
    moments that do not exist yet would be left out. To be called after every step.
    """
    for group in optimizer.param_groups:
        if not any(parameter in optimizer.state for parameter in group["params"]):
            group.pop("step", None)
