"""How a training is going: one line an epoch everywhere, and on a terminal a bar below them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger(__name__)


class ProgressBar(TQDMProgressBar):
    """Shows ``epoch 3/20  ETA 0:36  loss 0.610  top1 0.912  1,234 img/s  wait 3% |███   |``.

    Bar and ETA are those of the whole run, not of the epoch. The ETA goes by the pace since the
    first step of this process, its validations and checkpoints included. ``top1`` is counted since
    the epoch began, on this rank; ``img/s`` and ``wait`` (the share of the time spent waiting for
    images) are what `Throughput` logged last.

    Args:
        refresh_s: seconds between two looks at the numbers. Only then is the device waited for.
    """

    def __init__(self, refresh_s: float = 0.5) -> None:
        super().__init__()
        self.refresh_s = refresh_s
        self._next_look = 0.0
        self._pace: _Pace | None = None

    def on_train_start(self, *args: Any) -> None:
        """Open the bar."""
        super().on_train_start(*args)
        self._pace = None
        self._next_look = 0.0

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Leave the bar as it is: it is that of the run."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the numbers if it is time to."""
        now = time.monotonic()
        if self._pace is None:
            self._pace = _Pace(trainer, now)
        if self.is_enabled and now >= self._next_look:
            self._show(trainer, pl_module)
            self._next_look = time.monotonic() + self.refresh_s

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the numbers at the end of the epoch."""
        if self.is_enabled and self._pace is not None:
            self._show(trainer, pl_module)

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Return nothing: Lightning's own numbers are not shown."""
        return {}

    def init_train_tqdm(self) -> Tqdm:
        """Return a bar that goes with the training; the lines of the epochs stay."""
        bar = super().init_train_tqdm()
        bar.bar_format, bar.leave = "{desc} |{bar}|", False
        return bar

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._pace is not None
        bar = self.train_progress_bar
        bar.total = None if self._pace.total == float("inf") else int(self._pace.total)
        bar.n = trainer.global_step
        words = [f"epoch {_epoch(trainer)}", self._pace.eta(trainer)]
        words += _figures({**trainer.callback_metrics, **_scores_so_far(pl_module)})
        bar.set_description_str("  ".join(filter(None, words)))


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
        self._pace: _Pace | None = None
        self._epoch_start = 0.0
        self._validated = False
        self._waiting: list[str] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where this process sets out."""
        self._epoch_start = time.monotonic()
        self._pace = _Pace(trainer, self._epoch_start)

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
        assert self._pace is not None
        seconds = f"{time.monotonic() - self._epoch_start:.1f} s"
        self._waiting = [
            f"epoch {_epoch(trainer)}  step {trainer.global_step}",
            "  ".join(filter(None, [seconds, self._pace.eta(trainer)])),
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


def write_line(line: str) -> None:
    """Log ``line``, or print it if nobody listens to the log, above any open progress bar."""
    with tqdm.external_write_mode():
        if logger.hasHandlers() and logger.isEnabledFor(logging.INFO):
            logger.info(line)
        else:
            print(line, flush=True)


class _Pace:
    """How fast the steps are made from now on, and so how long the rest takes.

    Args:
        trainer: that makes them.
        now: of `time.monotonic`.
    """

    def __init__(self, trainer: Trainer, now: float) -> None:
        self._start = now
        self._first_step = trainer.global_step
        self.total = float("inf")

    def eta(self, trainer: Trainer) -> str:
        """Return ``"ETA 1:23:45"``, or nothing for a run without an end or before a step."""
        # Asked only here: before the first batch it would start the loaders of a resumed run.
        self.total = float(trainer.estimated_stepping_batches)
        done = trainer.global_step - self._first_step
        if done <= 0 or self.total == float("inf"):
            return ""
        pace = (time.monotonic() - self._start) / done
        minutes, seconds = divmod(round(pace * max(0, self.total - trainer.global_step)), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"ETA {clock}:{seconds:02}"


def _epoch(trainer: Trainer) -> str:
    """Return `` 3/20``, or ``3`` for a run without an end."""
    total = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
    width = len(str(total)) if total else 1
    return f"{trainer.current_epoch + 1:>{width}}" + (f"/{total}" if total else "")


def _scores_so_far(pl_module: LightningModule) -> dict[str, Tensor]:
    """Return what a task counts while it trains, as `fovea.tasks.Task.running_scores` says it."""
    running = getattr(pl_module, "running_scores", None)
    return {} if running is None else running()


def _figures(metrics: Mapping[str, Tensor]) -> list[str]:
    """Return those of ``metrics`` that the bar shows, in words; waits for the device."""
    words = []
    for name in ("loss", "top1"):
        if f"train/{name}" in metrics:
            words.append(f"{name} {_short(float(metrics[f'train/{name}']))}")
    if (speed := metrics.get("perf/images_per_second")) is not None:
        words.append(f"{float(speed):,.0f} img/s")
    if (wait := metrics.get("perf/data_wait")) is not None:
        words.append(f"wait {float(wait):.0%}")
    return words


def _short(value: float) -> str:
    """Return four significant digits, without an exponent between 0.001 and 10,000."""
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.2e}"
    return f"{value:#.4g}".rstrip(".")
