"""The exponential moving average of torchvision's reference training."""

from __future__ import annotations

from typing import Any

import lightning

from fovea.errors import FoveaError
from fovea.optim.averaging import AveragedWeights
from fovea.optim.epochs import check_epochs, resolve_epochs
from fovea.optim.rates import count_steps


class TorchvisionAverage(AveragedWeights):
    """An average with a memory of a share of the run, however long the run and large its batch.

    An update keeps ``1 - min(1, (1 - decay) * batch_size * every_n_steps / max_epochs)`` of the
    average. It follows the first step of each epoch and every ``every_n_steps``-th from there on.
    In the epochs of the warm-up it is a plain copy, and so is the first one after them.

    For 8 x 128 images, 32 steps, 600 epochs and a decay of 0.99998 an update keeps 0.99891.

    Source: pytorch/vision ``references/classification/train.py`` (``--model-ema``; the reset of
    ``n_averaged`` while ``epoch < lr_warmup_epochs``). Its ``batch_size`` times the number of
    devices is the global batch here, and its iterations are optimiser steps.

    Args:
        batch_size: global.
        decay: before it is adjusted, in [0, 1).
        every_n_steps: optimiser steps between updates.
        warmup_epochs: or a share of the run ("5%").
    """

    def __init__(
        self,
        batch_size: int,
        decay: float = 0.99998,
        every_n_steps: int = 32,
        warmup_epochs: float | str = 0,
    ) -> None:
        super().__init__(decay, every_n_steps)
        if batch_size < 1:
            raise FoveaError(f"callbacks.ema.batch_size is {batch_size!r}: it takes a number >= 1.")
        self.batch_size = batch_size
        self.warmup_epochs = check_epochs(warmup_epochs, "callbacks.ema.warmup_epochs")
        self._max_epochs = 1
        self._steps_per_epoch = 1

    def share_kept(self, updates: int) -> float:
        """Return the share of the average that an update keeps."""
        adjust = self.batch_size * self.every_n_steps / self._max_epochs
        return 1 - min(1.0, (1 - self.decay) * adjust)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether the optimiser step with this number from 0 is followed by an update."""
        if step_idx is None:
            return False
        return step_idx % self._steps_per_epoch % self.every_n_steps == 0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Learn the length of the run and of its epochs."""
        self._max_epochs = trainer.max_epochs or 1
        self._steps_per_epoch = count_steps(trainer)[1]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the average where it is due; forget in the warm-up that it was updated."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        warmup = resolve_epochs(self.warmup_epochs, self._max_epochs)
        if trainer.current_epoch < warmup and self._average_model is not None:
            self._average_model.n_averaged.fill_(0)
