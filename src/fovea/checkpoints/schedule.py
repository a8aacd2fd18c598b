"""When checkpoints are made: each epoch, every so many steps or minutes, and when asked to stop."""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.trainer.states import TrainerFn

from fovea.checkpoints import generations
from fovea.errors import FoveaError
from fovea.machine.agreement import Agreement
from fovea.machine.signals import STOP


class Stopped(SystemExit):
    """All ranks stopped at the same step, since one of them got a signal."""


class LastCheckpoint(Callback):
    """Keeps ``last.ckpt``, from which a run goes on exactly where it was saved.

    It is written between two steps, when all that belongs to the step before is counted and logged:
    after each epoch, when it is time, and when a signal (`fovea.machine.signals`) came to any of
    the ranks. Then all ranks raise `Stopped`: within two steps of training or of validation.

    Args:
        folder: of the checkpoints.
        every_n_steps: optimiser steps between saves in an epoch; None makes none.
        every_minutes: the same by the clock of rank 0.
    """

    def __init__(
        self, folder: Path, every_n_steps: int | None = None, every_minutes: float | None = None
    ) -> None:
        self.path = folder / generations.LAST
        self.every_n_steps = every_n_steps
        self.every_seconds = None if every_minutes is None else 60 * every_minutes
        self._agreement = Agreement(several=False)
        self._listens = False
        self._saved_step = 0
        self._saved_at = 0.0
        self._told = False
        self._epoch_end: tuple[int, dict[str, Any]] | None = None
        self._in_validation = False
        self._common_batches = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """From here on signals are only noted; they are nobody else's."""
        if stage != "fit":
            return
        # Lightning's handlers broadcast and save wherever the signal happens to come.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self._listens = STOP.listen()
        STOP.speaks = trainer.is_global_zero

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; from here on there is something to save."""
        STOP.deferred = True
        self._agreement = Agreement(several=trainer.world_size > 1)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        # A run stopped in a validation goes through it again: count its batches from none.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop or save if it is time to: the step before is whole, counted and logged."""
        if batch_idx % trainer.accumulate_grad_batches:
            return  # gradients that are still being accumulated would be lost
        number, due = self._agreement.exchange(STOP.number, self._is_due(trainer))
        _stop_if_asked(number)
        counted = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due or counted:
            self._save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        """Return whether the clock says so; once until the save that follows."""
        if self.every_seconds is None or self._told or not trainer.is_global_zero:
            return False
        self._told = time.monotonic() - self._saved_at >= self.every_seconds
        return self._told

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the batches that all ranks have."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._in_validation = True
            batches = [n for n in trainer.num_val_batches if n != float("inf")]
            self._common_batches = -self._agreement.largest(-int(sum(batches)))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop if a signal came; the whole validation is done again when the run goes on."""
        if self._in_validation and batch_idx < self._common_batches:
            number, due = self._agreement.exchange(STOP.number, 0)
            _stop_if_asked(number)
            if due:  # no step begins here: the clock asks again at the next that does
                self._told = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the end of the validation."""
        self._in_validation = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the loops stand; the save waits until this epoch's metrics are logged."""
        self._saved_step = -1  # a checkpoint of this step may be one from within the validation
        loops = copy.deepcopy(trainer.fit_loop.state_dict())
        timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
        in_time = all((timer.time_remaining() or 1) > 0 for timer in timers)
        if not (in_time or trainer.fit_loop.epoch_loop._num_ready_batches_reached()):
            # The time was over within the epoch: a run that goes on finishes it.
            for counts in (loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]):
                counts["processed"] = counts["completed"]
        self._epoch_end = trainer.current_epoch, loops

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch before."""
        if self._epoch_end is not None:
            self._save(trainer)
        self._epoch_end = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch.

        Raises:
            FoveaError: that failed, so the run is not complete.
        """
        failed = self._save(trainer) if self._epoch_end is not None else None
        if failed is not None:
            raise FoveaError(f"The training is over, but {failed}")
        self._epoch_end = None
        _stop_if_asked(self._agreement.largest(STOP.number))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save where all ranks stopped together; after anything else no state can be trusted."""
        if isinstance(exception, Stopped):
            self._save(trainer)
        self._give_back()  # Lightning tears nothing down after an exception

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make the loops' state one that Lightning can go on from."""
        loops = checkpoint["loops"]["fit_loop"]
        if self._in_validation:  # as in the first batch: Lightning forgets the scores so far
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = loops["epoch_loop.val_loop.batch_progress"]
            progress.update(total=dict(begun), current=dict(begun), is_last_batch=False)
        elif self._epoch_end is not None:
            checkpoint["epoch"], checkpoint["loops"]["fit_loop"] = self._epoch_end

    def _save(self, trainer: Trainer) -> str | None:
        """Save unless that is done; return on all ranks why it failed, None if it did not."""
        self._saved_at, self._told = time.monotonic(), False
        if self._saved_step == trainer.global_step and not self._in_validation:
            return None
        trainer.save_checkpoint(self.path)
        failed = _failure(trainer)
        if failed is None:
            self._saved_step = trainer.global_step
        return failed

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let signals end the command at once again, or give them back."""
        self._give_back()

    def _give_back(self) -> None:
        STOP.deferred = False
        if self._listens:
            STOP.give_back()
            self._listens = False


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which also knows its files in a run folder that was moved.

    A best checkpoint that could not be written does not count: the next better epoch is tried.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best score so far, and the files it belongs to, where they are now."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: here(state_dict[name]) for name in paths}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        state = {**state_dict, **moved, "dirpath": self.dirpath, "best_k_models": scores}
        super().load_state_dict(state)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if this epoch is the best."""
        self._unless_it_fails(super().on_train_epoch_end, trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if this validation is the best."""
        self._unless_it_fails(super().on_validation_end, trainer, pl_module)

    def _unless_it_fails(
        self, save: Callable[..., None], trainer: Trainer, pl_module: LightningModule
    ) -> None:
        before, step = copy.deepcopy(self.state_dict()), self._last_global_step_saved
        save(trainer, pl_module)
        if self._last_global_step_saved != step and _failure(trainer) is not None:
            self.load_state_dict(before)


def _failure(trainer: Trainer) -> str | None:
    """Return on all ranks why the latest save failed, None if it did not."""
    io = trainer.strategy.checkpoint_io
    failed: str | None = trainer.strategy.broadcast(getattr(io, "failed", None))
    return failed


def _stop_if_asked(number: int) -> None:
    """Raise `Stopped` if ``number``, the same on all ranks, is that of a signal and not 0."""
    if number:
        STOP.received = signal.Signals(number)
        raise Stopped(STOP.status)
