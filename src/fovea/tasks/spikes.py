"""Jumps of the training loss, noted as they happen."""

from __future__ import annotations

import logging
import math
from collections import deque
from statistics import median
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

log = logging.getLogger(__name__)

WINDOW = 100
"""Losses that say what is usual; also the least number of steps between two warnings."""
ENOUGH = 20
"""Losses from which on a spread can be told."""


class LossSpikes(Callback):
    """Warns when the loss of a step lies far above the usual, and logs ``train/spikes``, the count.

    A spike is more than ``threshold`` scales above the median of the last `WINDOW` losses. The
    scale is 1.4826 times their median absolute deviation, which for normal noise is the standard
    deviation: Hampel's identifier (Davies and Gather 1993, "The identification of multiple
    outliers"). It is at least a tenth of the median, and a hundredth of the median of the run's
    first losses, so that nothing is made of the noise of losses near zero.

    Losses are read off a GPU when a step is logged, so a warning may come that much later. What is
    counted does not depend on it, nor on where a run was cut and resumed.

    Args:
        threshold: in scales.
    """

    def __init__(self, threshold: float = 10.0) -> None:
        self.threshold = threshold
        self._usual: deque[float] = deque(maxlen=WINDOW)
        self._start: float | None = None
        self._count = 0
        self._warned = -WINDOW
        self._step = 0
        self._unseen: list[tuple[int, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on from."""
        self._look()
        numbers = {"start": self._start, "count": self._count, "warned": self._warned}
        return {"usual": list(self._usual), **numbers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self._usual = deque(state_dict["usual"], maxlen=WINDOW)
        self._start, self._count = state_dict["start"], state_dict["count"]
        self._warned = state_dict["warned"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Note which step comes first."""
        self._step, self._unseen = trainer.global_step, []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the loss of a step that is complete."""
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        loss = pl_module.step_loss.reduce(trainer.strategy)
        self._unseen.append((self._step, loss))
        self._step = trainer.global_step
        if self._step % trainer.log_every_n_steps == 0 or loss.device.type == "cpu":  # type: ignore[attr-defined]
            self._look()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log how many spikes the run has had so far."""
        self._look()
        pl_module.log_once("train/spikes", float(self._count))

    def _look(self) -> None:
        """Read the losses off the device and judge each by those before it."""
        unseen, self._unseen = self._unseen, []
        for step, loss in [(step, float(loss)) for step, loss in unseen]:
            if not math.isfinite(loss):
                continue  # `NonFiniteGuard` sees to it
            if len(self._usual) >= ENOUGH:
                self._judge(step, loss)
            self._usual.append(loss)

    def _judge(self, step: int, loss: float) -> None:
        usual = median(self._usual)
        if self._start is None:
            self._start = usual
        least = max(usual / 10, self._start / 100)
        if loss - usual <= self.threshold * least:
            return  # as nearly all; the spread takes longer
        spread = 1.4826 * median(abs(one - usual) for one in self._usual)
        if loss - usual <= self.threshold * max(spread, least):
            return
        self._count += 1
        if step - self._warned >= WINDOW:
            self._warned = step
            log.warning(
                "step %d: the training loss jumped to %.4g; usual is %.4g (%d so far)",
                *(step, loss, usual, self._count),
            )
