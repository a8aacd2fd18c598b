"""How fast training goes, how long it waits for its images, and how much memory it takes."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler, Profiler

from fovea.types import Batch

logger = logging.getLogger(__name__)

BOTTLENECK = 0.3
"""Share of the time spent waiting for data from which on that is worth a line."""

BOTTLENECK_SECONDS = 30.0
"""Training that is judged together: a short wait, for a cold disk cache say, is no bottleneck."""

BOTTLENECK_INTERVALS = 3
"""Logged intervals that this training spans at least."""

_NOTHING = nullcontext()

GENERAL_ADVICE = "more workers (data.num_workers), a cheaper augment, smaller images"


class Throughput(Callback):
    """Logs how fast training goes, in the rows of ``train/loss``.

    Each ``trainer.log_every_n_steps`` optimiser steps, for the training since the last time:

    - ``perf/images_per_second``: images that all ranks together trained on;
    - ``perf/data_wait``: share of the time, 0 to 1, spent waiting for the loader's next batch. On a
      GPU it is the time the GPU stood idle for it. Moving the batch to the device, and normalising
      it there, does not count;
    - ``perf/device_memory_gb``: the most that tensors ever took of a GPU, in 1e9 bytes; without a
      GPU ``perf/host_memory_gb``: the most that the process ever took, its workers not counted.

    The last two are those of the rank where they are highest.

    Left out is the time of validation, of what happens between epochs, and of saving, and all that
    comes before the end of the first batch: starting workers, compiling, choosing kernels. Nothing
    waits for the device, and no random number is drawn.

    If data is the bottleneck for long, rank zero says so, once, with the advice of the data module
    (``data_wait_advice()``, if it has that method). It judges by its own waiting, and not by the
    first interval, in which the queues of the workers fill up.
    """

    def __init__(self) -> None:
        self._timeline: _Timeline | None = None
        self._verdict = _Verdict()
        self._images: int | None = None
        self._step = 0

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Watch the batches being fetched from here on."""
        self._timeline = _Timeline(trainer.profiler, trainer.strategy.root_device)
        trainer.profiler = self._timeline
        self._verdict = _Verdict()
        self._images = None
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch; log at the end of each n-th optimiser step."""
        assert self._timeline is not None
        if self._images is None:
            self._timeline.restart()
            self._images = 0
        else:
            self._images += len(batch.indices) * trainer.world_size
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        if self._step % trainer.log_every_n_steps == 0 and self._images:
            seconds, waited = self._timeline.take()
            numbers = {
                "perf/images_per_second": self._images / seconds,
                # On a GPU a wait may be known only after the interval it fell into.
                "perf/data_wait": min(1.0, waited / seconds),
                **_memory(trainer.strategy.root_device),
            }
            pl_module.log_dict(
                numbers, on_step=True, on_epoch=False, sync_dist=True, reduce_fx="max"
            )
            self._images = 0
            if trainer.is_global_zero and (share := self._verdict.add(seconds, waited)):
                advice = getattr(trainer.datamodule, "data_wait_advice", lambda: GENERAL_ADVICE)
                logger.warning("Training waited for data %s. What helps: %s", share, advice())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock until the next batch is fetched."""
        self._pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock until the next batch is fetched."""
        self._pause()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stop the clock until the next batch is fetched."""
        self._pause()

    def _pause(self) -> None:
        if self._timeline is not None:
            self._timeline.pause()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the trainer its profiler back."""
        self._leave(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the trainer its profiler back."""
        self._leave(trainer)

    def _leave(self, trainer: Any) -> None:
        if self._timeline is not None:
            trainer.profiler = self._timeline.inner
            self._timeline = None


class _Timeline(Profiler):
    """The time of training and, within it, of waiting for batches.

    Lightning tells its profiler when it asks the loader for a batch, and when it has got it. The
    hooks of a callback are too far apart for that: between them the batch is moved and normalised,
    and ranks wait for each other and for their devices.

    Args:
        inner: the trainer's own profiler, which goes on as before.
        device: on a GPU waiting is measured by the GPU's own clock: a program that is ahead of a
            busy GPU, and waits for a batch meanwhile, loses nothing.
    """

    FETCH = "[_TrainingEpochLoop].train_dataloader_next"

    def __init__(self, inner: Profiler, device: torch.device) -> None:
        super().__init__()
        self.inner = inner
        self._alone = isinstance(inner, PassThroughProfiler)
        self._on_gpu = device.type == "cuda"
        self._since: float | None = None
        self._seconds = self._waited = 0.0
        self._fetches: deque[tuple[Any, Any]] = deque()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        """Return what is entered around an action: nothing where nobody measures it.

        Lightning asks for it some eighty times a step.
        """
        if self._alone and action_name != self.FETCH:
            return _NOTHING
        return super().profile(action_name)

    def start(self, action_name: str) -> None:
        """Let the clock run on when a batch is asked for."""
        self.inner.start(action_name)
        if action_name == self.FETCH:
            if self._since is None:
                self._since = time.perf_counter()
            self._asked = self._mark()

    def stop(self, action_name: str) -> None:
        """Note that a batch has come."""
        if action_name == self.FETCH:
            self._fetches.append((self._asked, self._mark()))
            self._add_up()
        self.inner.stop(action_name)

    def restart(self) -> None:
        """Forget everything, and count from here."""
        self._since = time.perf_counter()
        self._seconds = self._waited = 0.0
        self._fetches.clear()

    def pause(self) -> None:
        """Stop the clock until the next batch is asked for."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
        self._since = None

    def take(self) -> tuple[float, float]:
        """Return the seconds of training, and those spent waiting, since it was last asked."""
        self.pause()
        self._add_up()
        taken = self._seconds, self._waited
        self._seconds = self._waited = 0.0
        self._since = time.perf_counter()
        return taken

    def _mark(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add_up(self) -> None:
        """Add the fetches that the device has passed."""
        while self._fetches:
            asked, came = self._fetches[0]
            if not self._on_gpu:
                self._waited += came - asked
            elif came.query():
                self._waited += asked.elapsed_time(came) / 1000  # from milliseconds
            else:
                return
            self._fetches.popleft()


class _Verdict:
    """Whether data is the bottleneck for long: told once, and never of the first interval."""

    def __init__(self) -> None:
        self._seconds = self._waited = 0.0
        self._intervals = -1
        self._given = False

    def add(self, seconds: float, waited: float) -> str | None:
        """Take one interval; return the share in words if it is time to tell it."""
        self._intervals += 1
        if self._intervals == 0 or self._given:
            return None
        self._seconds += seconds
        self._waited += waited
        if self._seconds < BOTTLENECK_SECONDS or self._intervals < BOTTLENECK_INTERVALS:
            return None
        share, stretch = self._waited / self._seconds, self._seconds
        self._seconds = self._waited = 0.0
        self._intervals = 0
        self._given = share >= BOTTLENECK
        return f"{min(1.0, share):.0%} of the last {stretch:.0f} s" if self._given else None


def _memory(device: torch.device) -> dict[str, float]:
    """Return the peak of the memory that matters most on ``device``, in 1e9 bytes."""
    if device.type == "cuda":
        return {"perf/device_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"perf/host_memory_gb": peak / 1e9}
