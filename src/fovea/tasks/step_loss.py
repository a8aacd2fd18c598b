"""The training loss of an optimiser step, over all its micro-batches and devices."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from fovea.errors import FoveaError


class StepLoss:
    """Collects the losses of micro-batches, and stops a run whose loss is no longer a number."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._first_bad_step: Tensor | None = None

    def add(self, loss: Tensor) -> None:
        """Take the mean loss of one micro-batch."""
        self._losses.append(loss.detach())

    def reduce(self, strategy: Strategy) -> Tensor:
        """Return the mean over the global batch, equal on all ranks, and begin the next step.

        All micro-batches are of one size, so it is the mean of their means.
        """
        mean = torch.stack(self._losses).mean()
        self._losses.clear()
        reduced = strategy.reduce(mean, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        return reduced

    def stop_if_lost(self, loss: Tensor, step: int, look: bool) -> None:
        """Stop the run if the loss of ``step``, or of one before it, was not finite.

        Args:
            loss: as `reduce` gave it, so that all ranks stop together.
            step: optimiser step from 0.
            look: whether to read the result off the device, for which a GPU has to be waited for.

        Raises:
            FoveaError: names the first such step.
        """
        if self._first_bad_step is None:
            self._first_bad_step = torch.full((), -1, dtype=torch.int64, device=loss.device)
        bad = ~loss.isfinite() & (self._first_bad_step < 0)
        self._first_bad_step = torch.where(bad, step, self._first_bad_step)
        if (look or loss.device.type == "cpu") and int(self._first_bad_step) >= 0:
            raise FoveaError(
                f"The training loss became NaN or infinite at step {int(self._first_bad_step)}. "
                "Try a lower optimizer.lr, a longer scheduler.warmup_epochs, or "
                "trainer.gradient_clip_val=1."
            )
