"""The learning curves of a run, drawn while it goes on."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from fovea.checkpoints import durable
from fovea.evaluation import plot_learning_curves

logger = logging.getLogger(__name__)

FIRST_GUESS_S = 1.0
"""What a drawing is taken to cost before there was one."""


class LearningCurves(Callback):
    """Draws ``learning_curves.png`` after each epoch, as long as that costs next to nothing.

    An epoch is passed over if the drawings, with one more like the last, would take more than
    ``max_share`` of the time since training began. Only rank zero draws.

    Args:
        metrics_csv: the table that is drawn.
        path: of the picture, which is replaced as a whole.
        max_share: of the time, above 0.
    """

    def __init__(self, metrics_csv: Path | str, path: Path | str, max_share: float = 0.02) -> None:
        self.metrics_csv = Path(metrics_csv)
        self.path = Path(path)
        self.max_share = max_share
        self._start = 0.0
        self._spent, self._last = 0.0, FIRST_GUESS_S
        self._epochs = 0
        self._said = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._spent, self._epochs = 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the epochs before: only now is the last one's row complete."""
        self._epochs += 1
        if not trainer.is_global_zero or self._epochs == 1:
            return
        began = time.monotonic()
        if self._spent + self._last > self.max_share * (began - self._start):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = durable.partial(self.path)
            plot_learning_curves(self.metrics_csv, unfinished)
            unfinished.replace(self.path)
        except Exception as error:  # no room, no table: the run goes on
            if not self._said:
                logger.warning("%s was not drawn: %s", self.path.name, error)
            self._said = True
        self._last = time.monotonic() - began
        self._spent += self._last
