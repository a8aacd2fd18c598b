"""Exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from fovea.errors import FoveaError


def ema_decay(updates: int, decay: float, every_n_steps: int = 1) -> float:
    """Return the share of the old average that the next update keeps.

    It is ``min(decay ** every_n_steps, (1 + s) / (10 + s))`` after ``s = updates * every_n_steps``
    steps: the average follows quickly while the run is young, so runs of a few hundred steps are
    not judged by their initial weights. ``decay`` is a step's, so averaging less often keeps the
    same memory of about ``1 / (1 - decay)`` steps.

    Source: the ``num_updates`` rule of TensorFlow's ExponentialMovingAverage.
    """
    steps = updates * every_n_steps
    return min(decay**every_n_steps, (1 + steps) / (10 + steps))


class AveragedWeights(WeightAveraging):
    """Average of weights and buffers, used wherever the network is judged or stored.

    Validation runs with the averaged weights, a checkpoint's ``state_dict`` holds them (the weights
    that training goes on with are under ``current_model_state``), and after fitting the module has
    them. Buffers (BatchNorm statistics) are averaged like weights; integer ones are copied. A
    frozen parameter equals its average bit for bit.

    Args:
        decay: share of the average that one optimiser step keeps, in [0, 1); see `ema_decay`.
        every_n_steps: optimiser steps between updates.
        quick_start: False keeps ``decay`` from the first step on, as timm's ``ModelEma``.
    """

    def __init__(
        self, decay: float = 0.9999, every_n_steps: int = 1, quick_start: bool = True
    ) -> None:
        if isinstance(decay, str) or not 0 <= decay < 1:
            raise FoveaError(f"callbacks.ema.decay is {decay!r}: it takes a number in [0, 1).")
        if not isinstance(every_n_steps, int) or every_n_steps < 1:
            raise FoveaError(
                f"callbacks.ema.every_n_steps is {every_n_steps!r}: it takes a whole number >= 1."
            )
        super().__init__(use_buffers=True, multi_avg_fn=self._average)
        self.decay = decay
        self.every_n_steps = every_n_steps
        self.quick_start = quick_start
        self._swapped = False

    def share_kept(self, updates: int) -> float:
        """Return the share of the average that the next update keeps, after ``updates``."""
        if not self.quick_start:
            return self.decay**self.every_n_steps
        return ema_decay(updates, self.decay, self.every_n_steps)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether the optimiser step with this number from 0 is followed by an update."""
        return step_idx is not None and (step_idx + 1) % self.every_n_steps == 0

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Make the average for fitting, and drop it for anything else.

        Lightning keeps the average of a finished fit. A test after it would then load a checkpoint
        into the average, give the module the weights that were not averaged, and judge those.
        """
        self._swapped = False
        if stage != "fit":
            self._average_model = None
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average where it is due, but not after a step that was left out."""
        if getattr(pl_module, "step_left_out", False):
            self._latest_update_step = trainer.global_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Store averaged and current weights, each as what it is.

        During validation and after training the two have changed places.
        """
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            average, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, current

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Give the module the averaged weights, and keep its own for a checkpoint of the end."""
        self._swap_models(pl_module)

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Restore average and current weights for fitting; otherwise leave the averaged ones."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _swap_models(self, pl_module: lightning.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    @torch.no_grad()
    def _average(
        self, averages: list[Tensor], currents: list[Tensor], updates: Tensor | int
    ) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, currents)
            return
        keep = self.share_kept(int(updates))
        # lerp leaves equal values as they are; keep * average + (1 - keep) * current need not.
        torch._foreach_lerp_(averages, currents, 1 - keep)
