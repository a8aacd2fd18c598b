"""What a network says about every image of a split, with where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor

from fovea.data import ImageDataModule
from fovea.evaluation import Predictions
from fovea.machine import devices
from fovea.machine.out_of_memory import explaining_out_of_memory
from fovea.tasks import Task


def predict_split(
    task: Task,
    data: ImageDataModule,
    trainer: lightning.Trainer,
    split: str,
    origin: Mapping[str, Any] | None = None,
) -> Predictions | None:
    """Return what ``task`` says about ``split``, each sample once, on any number of ranks.

    Every rank has to call this; rank 0 gets the predictions, the others None.

    Args:
        task: with the weights to be judged.
        data: prepared; its ``views`` are what is seen of each image.
        trainer: gives devices and precision.
        split: "train" (without augmentation), "val" or "test".
        origin: what is noted in ``about`` beside the rest, such as ``ckpt``, ``run``, ``weights``.

    Returns:
        predictions with ``paths`` and ``class_names``, and ``about`` with ``split``, ``data``,
        ``fingerprint``, ``views``, ``preprocessing``, ``metrics`` (as the task logged them, by
        ``split/name``), ``seconds`` (of the pass, loading included, but
        not the start of ranks) and, if there were any,
        ``unreadable`` (how many images were left out). None as well for a task without labels.

    Raises:
        FoveaError: the data set has no such split.
    """
    dataset = data.dataset(split)
    data.test_split = task.test_split = split
    # The caller says where the numbers go: as one more row of the curves they would mislead.
    loggers, trainer.loggers = trainer.loggers, []
    watch = _Stopwatch()
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    try:
        with data.explaining_dead_workers(), explaining_out_of_memory(trainer, data):
            trainer.test(task, datamodule=data, verbose=False)
    finally:
        trainer.callbacks.remove(watch)  # type: ignore[attr-defined]
        trainer.loggers = loggers
    if task.predictions is None or not devices.is_main_process():
        return None
    about = _about(task.predictions, data, trainer, split)
    return dataclasses.replace(
        task.predictions,
        paths=tuple(dataset.path(index) for index in task.predictions.indices.tolist()),
        class_names=tuple(task.class_names),
        about={**about, "seconds": watch.seconds, **(origin or {})},
    )


class _Stopwatch(lightning.Callback):
    """Takes the time of a pass: once ranks, network and data are there, until the scores are."""

    seconds = 0.0

    def on_test_start(self, *_: Any) -> None:
        """Begin."""
        self.seconds = -time.monotonic()

    def on_test_end(self, *_: Any) -> None:
        """End."""
        self.seconds += time.monotonic()


def _about(
    found: Predictions, data: ImageDataModule, trainer: lightning.Trainer, split: str
) -> dict[str, Any]:
    """Return what is noted of every pass over ``split``."""
    about: dict[str, Any] = {
        "split": split,
        "data": data.found.layout,
        "fingerprint": data.split_fingerprints()[split],
        "views": data.views.describe(),
        "preprocessing": data.preprocessing.to_dict(),
        "metrics": logged_metrics(trainer, split),
    }
    left_out = len(data.splits[split]) - len(found)
    if left_out and trainer.limit_test_batches == 1.0:
        about["unreadable"] = left_out
    return about


def logged_metrics(trainer: lightning.Trainer, split: str) -> dict[str, float]:
    """Return what the last pass over ``split`` logged, by ``split/name``."""
    logged = trainer.callback_metrics.items()
    return {name: float(value) for name, value in logged if name.startswith(f"{split}/")}


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return a short hash of a network's weights: of ``backbone.`` and ``head.`` in ``state``."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.startswith(("backbone.", "head.")):
            tensor = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
