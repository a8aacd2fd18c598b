"""One line an epoch on standard output, on a terminal and in a log file alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tqdm import tqdm

logger = logging.getLogger(__name__)


class EpochLines(Callback):
    """Prints ``epoch  3/20  step 54  train/loss 0.6100  val/top1 0.9530  2.1 s  ETA 0:36``.

    A progress bar that is open on the terminal stays below the lines. Only rank zero prints. The
    seconds are those of the epoch with its validation; the ETA is what the rest takes at the pace
    since this process started to train.

    Args:
        metrics: shown in this order where they exist, then the monitored one if it is another. A
            validation score is shown only after epochs that had a validation.
        write: what to do with the line; None logs it where logging is set up, and else prints it.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("train/loss", "train/top1", "val/loss", "val/top1"),
        write: Callable[[str], Any] | None = None,
    ) -> None:
        self.metrics = tuple(metrics)
        self.write = write or write_line
        self._fit_start = 0.0
        self._first_step = 0
        self._epoch_start = 0.0
        self._validated = False
        self._waiting: list[str] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where this process sets out."""
        self._fit_start = self._epoch_start = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before, and start the clock."""
        self._print(trainer)
        self._epoch_start = time.monotonic()
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has fresh validation scores."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time; the line has to wait for what the task logs in this same hook."""
        total = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        width = len(str(total)) if total else 1
        epochs = f"{trainer.current_epoch + 1:>{width}}" + (f"/{total}" if total else "")
        self._waiting = [
            f"epoch {epochs}  step {trainer.global_step}",
            f"{time.monotonic() - self._epoch_start:.1f} s{self._eta(trainer)}",
        ]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch."""
        self._print(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Print the line of an epoch that was complete when the run was cut."""
        self._print(trainer)

    def _print(self, trainer: Trainer) -> None:
        if self._waiting and trainer.is_global_zero:
            begin, end = self._waiting
            scores = [f"{name} {value}" for name, value in self._scores(trainer)]
            self.write("  ".join([begin, *scores, end]))
        self._waiting = None

    def _scores(self, trainer: Trainer) -> list[tuple[str, str]]:
        monitors = [
            callback.monitor
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.monitor
        ]
        found = trainer.callback_metrics
        return [
            (name, _short(found[name].item()))
            for name in dict.fromkeys([*self.metrics, *monitors])
            if name in found and (self._validated or not name.startswith("val/"))
        ]

    def _eta(self, trainer: Trainer) -> str:
        """Return ``"  ETA 1:23:45"``, or nothing for a run without an end."""
        done = trainer.global_step - self._first_step
        total = trainer.estimated_stepping_batches
        if done <= 0 or total == float("inf"):
            return ""
        pace = (time.monotonic() - self._fit_start) / done
        minutes, seconds = divmod(round(pace * max(0, total - trainer.global_step)), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"  ETA {clock}:{seconds:02}"


def write_line(line: str) -> None:
    """Log ``line``, or print it if nobody listens to the log, above any open progress bar."""
    with tqdm.external_write_mode():
        if logger.hasHandlers() and logger.isEnabledFor(logging.INFO):
            logger.info(line)
        else:
            print(line, flush=True)


def _short(value: float) -> str:
    """Return four significant digits, without an exponent between 0.001 and 10,000."""
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.2e}"
    return f"{value:#.4g}".rstrip(".")
