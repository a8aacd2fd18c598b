"""Ctrl-C: finish the step, save, and stop, on all ranks together."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class GracefulInterrupt(Callback):
    """Turns the first Ctrl-C into a checkpoint at the end of the running step, then a clean end.

    The second Ctrl-C stops at once. With several ranks all must stop at the same step; they agree
    every ``trainer.log_every_n_steps`` steps, since agreeing costs a synchronisation.

    Args:
        folder: where ``last.ckpt`` is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._asked = False
        self._speaks = True
        self._every = 1
        self._previous: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for Ctrl-C from here on."""
        self._speaks = trainer.is_global_zero
        self._every = int(getattr(trainer, "log_every_n_steps", 1))
        self._previous = signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True
        if self._speaks:
            print(
                "\nCtrl-C: saving as soon as the step is over (again: stop at once) …", flush=True
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if Ctrl-C was pressed: the last step is whole, counted and logged."""
        if batch_idx % trainer.accumulate_grad_batches:
            return  # gradients that are still being accumulated would be lost
        asked = self._asked
        if trainer.world_size > 1:
            if trainer.global_step % self._every:
                return
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            raise KeyboardInterrupt

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save ``last.ckpt`` when the run was stopped at a step's end by Ctrl-C."""
        if isinstance(exception, KeyboardInterrupt) and self._asked:
            trainer.save_checkpoint(self.folder / "last.ckpt")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        if stage == "fit" and self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
