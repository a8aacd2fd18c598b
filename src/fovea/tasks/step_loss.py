"""The training loss of an optimiser step, over all its micro-batches and devices."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor


class StepLeftOut(Exception):  # noqa: N818 - no error: the step ends early
    """Raised between the backward pass and the update: the optimiser must not move anything."""


class StepLoss:
    """Collects the losses of an optimiser step's micro-batches."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._reduced: Tensor | None = None
        self._faulty: Tensor | None = None

    def add(self, loss: Tensor) -> None:
        """Take the mean loss of one micro-batch; after `reduce` it is the first of a new step."""
        if self._reduced is not None:
            self._losses, self._reduced, self._faulty = [], None, None
        self._losses.append(loss.detach())

    @property
    def last(self) -> Tensor | None:
        """Mean over the global batch if that is known already; asking exchanges nothing."""
        return self._reduced

    def of_micro_batches(self) -> Tensor:
        """Return the losses of this rank's micro-batches, (micro-batches,)."""
        return torch.stack(self._losses)

    def note_fault(self, faulty: Tensor) -> None:
        """Take whether this rank's gradients are no numbers, a bool scalar: before `reduce`."""
        self._faulty = faulty

    def reduce(self, strategy: Strategy) -> Tensor:
        """Return the mean over the global batch, equal on all ranks.

        All micro-batches are of one size, so it is the mean of their means. The ranks exchange it
        once a step, however often it is asked for.
        """
        if self._reduced is None:
            losses = self._losses
            mean = losses[0] if len(losses) == 1 else self.of_micro_batches().mean()
            faulty = torch.zeros_like(mean) if self._faulty is None else self._faulty.to(mean)
            reduced = strategy.reduce(torch.stack([mean, faulty]), reduce_op="mean")
            assert isinstance(reduced, Tensor)
            self._reduced, share = reduced.unbind()
            self._faulty = (share > 0) | ~self._reduced.isfinite()
        return self._reduced

    def faulty(self, strategy: Strategy) -> Tensor:
        """Return whether loss or gradients are no numbers on any rank, a bool scalar."""
        self.reduce(strategy)
        assert self._faulty is not None
        return self._faulty
