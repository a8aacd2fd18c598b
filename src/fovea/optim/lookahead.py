"""Lookahead: weights that are pulled back to a slow average of themselves."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from fovea.errors import FoveaError
from fovea.optim.rates import count_steps


class Lookahead(Callback):
    """Every few steps, averages the weights and goes on from the average.

    After each ``every_n_steps``-th of T steps the average takes in the weights, of itself keeping
    ``decay ** every_n_steps * (step / T) ** power``, and then replaces them: next to nothing
    happens early in the run, and late the weights hardly leave the average. After step T they are
    the average as it was last updated. BatchNorm's statistics are averaged like weights.

    A run that ends early, by time or by early stopping, ends with its weights as they are.

    Args:
        decay: share of the average that a step keeps at the end of the run, in [0, 1).
        every_n_steps: optimiser steps between updates.
        power: how late it sets in.

    Raises:
        FoveaError: a value outside its range; a strategy that divides the weights among devices.

    Source: Zhang et al. 2019, "Lookahead Optimizer" (arXiv 1907.08610), in the form of airbench94:
    Jordan 2024, arXiv 2404.00498, section 3.4; ``LookaheadState`` of ``legacy/airbench94.py``,
    whose average begins before the first convolution is whitened, which is to move it by less than
    a millionth.
    """

    def __init__(self, decay: float = 0.95, every_n_steps: int = 5, power: float = 3.0) -> None:
        if not 0 <= decay < 1 or every_n_steps < 1 or power < 0:
            raise FoveaError(
                f"callbacks.lookahead: decay={decay} is in [0, 1), every_n_steps={every_n_steps} "
                f"at least 1, power={power} at least 0."
            )
        self.decay = decay
        self.every_n_steps = every_n_steps
        self.power = power
        self._average: dict[str, Tensor] = {}
        self._step = 0
        self._total = 0

    def share_kept(self, step: int, total_steps: int) -> float:
        """Return the share of the average that the update after ``step`` steps keeps."""
        return float(self.decay**self.every_n_steps * (step / total_steps) ** self.power)

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Refuse what can't be averaged."""
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise FoveaError(
                f"callbacks.lookahead needs whole weights on each device, which "
                f"{type(trainer.strategy).__name__} does not keep. Take trainer=ddp, or leave it "
                "out: ~callbacks.lookahead"
            )

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin with the weights as they are, or go on with the average of a checkpoint."""
        self._step, self._total = trainer.global_step, count_steps(trainer)[0]
        current = _weights(pl_module)
        stored = self._average
        self._average = {
            name: stored[name].to(tensor.device) if name in stored else tensor.clone()
            for name, tensor in current.items()
        }

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update where it is due; at the end of the run leave the average as the weights."""
        step = trainer.global_step
        ends = step == self._total
        due = step % self.every_n_steps == 0
        if step == self._step or not (due or ends):
            return
        self._step = step
        current = list(_weights(pl_module).values())
        average = list(self._average.values())
        if due:
            torch._foreach_lerp_(average, current, 1 - self.share_kept(step, self._total))
        torch._foreach_copy_(current, average)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for a checkpoint."""
        return {"average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the average of a checkpoint."""
        self._average = dict(state_dict["average"])


def _weights(module: lightning.LightningModule) -> dict[str, Tensor]:
    """Return weights and statistics by name; the tensors are those of the module."""
    return {n: t for n, t in module.state_dict().items() if t.is_floating_point()}
