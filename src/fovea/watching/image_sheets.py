"""One sheet of training images and one of evaluation images, at the start of a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from fovea.checkpoints import durable
from fovea.types import Batch
from fovea.watching.sheet import denormalized, draw_sheet, titles
from fovea.watching.showing import SHEETS, show_figures

logger = logging.getLogger(__name__)

READING_S = 0.4
"""Seconds that reading evaluation images may take: what a slow disk has not given then is left out,
but for the first."""


class ImageSheets(Callback):
    """Draws ``train_images.png`` and ``eval_images.png``: what the network really gets.

    Training images are those of the first batch that passes, with all that was done to them;
    evaluation images come evenly from all over the val split. Nothing of the run changes by it: no
    random number is drawn, no batch asked for, and only rank zero does anything. Loggers that show
    pictures get them, too. A sheet that is there, from before a resume, is kept.

    Args:
        folder: where the sheets go.
        count: images on each.
    """

    def __init__(self, folder: Path | str, count: int = 24) -> None:
        self.folder = Path(folder)
        self.count = count
        self._due = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the first batch."""
        self._due = trainer.is_global_zero

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Draw both sheets, the first time."""
        if self._due:
            self._due = False
            data = trainer.datamodule  # type: ignore[attr-defined]
            train, evaluation = SHEETS
            self._draw(trainer, train, lambda: _of_batch(batch, data, self.count))
            self._draw(trainer, evaluation, lambda: _of_split(data, "val", self.count))

    def _draw(
        self, trainer: Trainer, name: str, content: Callable[[], tuple[Tensor, list[str], str]]
    ) -> None:
        path = self.folder / f"{name}.png"
        if path.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = durable.partial(path)
            draw_sheet(*content(), unfinished)
            unfinished.replace(path)
        except Exception as error:  # an image that can't be read, a batch of another kind, no room
            logger.warning("%s was not drawn: %s", path.name, error)
        else:
            show_figures(trainer.loggers, [path])


def _of_batch(batch: Batch, data: Any, count: int) -> tuple[Tensor, list[str], str]:
    """Return images, labels and heading of the first ``count`` images of a training batch."""
    targets = None if batch.targets is None else batch.targets[:count]
    first = Batch(batch.images[:count], batch.labels[:count], batch.indices[:count], targets)
    heading = f"Training images: {len(first.images)} of the first batch, augmented"
    return (
        denormalized(first.images, data.preprocessing),
        titles(first, data.class_names),
        heading,
    )


def _of_split(data: Any, split: str, count: int) -> tuple[Tensor, list[str], str]:
    """Return images, labels and heading of up to ``count`` images from all over ``split``."""
    dataset = data.dataset(split)
    if dataset.decode == "gpu":
        dataset.decode = "auto"
    total = len(dataset)
    samples: list[Batch] = []
    deadline = time.monotonic() + READING_S
    for index in torch.linspace(0, total - 1, min(count, total)).round().long().tolist():
        samples.append(dataset[index])
        if time.monotonic() > deadline:
            break
    pixels, labels, indices = map(torch.stack, zip(*(s[:3] for s in samples), strict=True))
    batch = Batch(pixels, labels, indices)
    images = data.preprocessing.normalize(batch.images)
    heading = f"Evaluation images: {len(samples)} of the {total:,} of {split}"
    return denormalized(images, data.preprocessing), titles(batch, data.class_names), heading
