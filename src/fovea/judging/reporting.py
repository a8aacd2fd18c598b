"""Predictions kept as files, and the report on them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from fovea import run_folder
from fovea.data import ImageDataModule
from fovea.data.images import UnreadableImage, decode_image
from fovea.errors import FoveaError
from fovea.evaluation import Predictions, write_report
from fovea.evaluation.corruption_report import write_corruptions
from fovea.evaluation.intervals import wilson
from fovea.evaluation.sections import Section
from fovea.judging.harder import real_section
from fovea.machine.no_room import spared


def keep(folder: Path, predictions: Predictions) -> None:
    """Write ``predictions`` to their place in ``folder``: ``predictions/<split>.npz``."""
    place = folder / run_folder.PREDICTIONS / f"{predictions.about['split']}.npz"
    with spared("The predictions", place):
        predictions.save(place)


def report(
    folder: Path,
    predictions: Predictions,
    images_of: Callable[[int], Tensor] | None = None,
    *,
    val: Predictions | None = None,
    measured: pd.DataFrame | None = None,
    sections: Sequence[Section] = (),
) -> None:
    """Write the report on ``predictions`` into ``folder``; a full disk is said, and survived.

    Args:
        folder: made if absent.
        predictions: with ``about`` as `predict_split` fills it, and perhaps ``cost`` in it, see
            `fovea.judging.cost`.
        images_of: see `write_report`. None: the files that ``predictions`` name are shown, and
            the report says so, as a file of predictions may name any.
        val: of the same network; see `write_report`.
        measured: what it scored under corruption, see `write_corruptions`.
        sections: what else belongs into the report.
    """
    about = dict(predictions.about)
    metrics, cost = about.pop("metrics", None), about.pop("cost", None)
    if images_of is None and (images_of := images_of_paths(predictions)) is not None:
        folder_of_all = os.path.commonpath([os.path.abspath(path) for path in predictions.paths])
        about["pictures"] = f"of the files that the predictions name, in {folder_of_all}"
    shown = dataclasses.replace(predictions, about=about)
    with spared("The report", folder):
        corrupted = [] if measured is None else write_corruptions(folder, measured)
        write_report(
            folder,
            shown,
            val=val,
            images_of=images_of,
            metrics=metrics,
            cost=cost,
            sections=[*real_section(metrics or {}), *corrupted, *sections],
        )


def images_of_data(data: ImageDataModule, split: str) -> Callable[[int], Tensor]:
    """Return what gives the (C, H, W) uint8 image of a sample of ``split`` by its index."""
    dataset = data.dataset(split)
    return lambda index: dataset[index].images


def images_of_paths(predictions: Predictions) -> Callable[[int], Tensor] | None:
    """Return what gives a sample's whole image as (3, h, w) uint8, from the file of its path.

    None if not one of the files is there, as with images that were never files.
    """
    paths = dict(zip(predictions.indices.tolist(), predictions.paths, strict=False))
    if not any(os.path.isfile(path) for path in paths.values()):
        return None

    def read(index: int) -> Tensor:
        if not os.path.isfile(paths[index]):  # to open a pipe would wait for ever
            raise UnreadableImage(paths[index], "no such file, or no regular one")
        return decode_image(paths[index])

    return read


def headline(predictions: Predictions) -> dict[str, str]:
    """Return each score of the split in words, with the 95 % interval (Wilson) of a share.

    Such as ``{"test/top1": "0.953611 (95 %: 0.926752 to 0.970928)"}``.
    """
    n = len(predictions)
    words = {}
    for name, value in sorted(predictions.about["metrics"].items()):
        words[name] = f"{value:.6f}"
        if name.endswith(("/top1", "/top5")):
            hits = (predictions.ranks < int(name[-1])).sum()
            words[name] += " (95 %: {:.6f} to {:.6f})".format(*wilson(int(hits), n))
    return words


def require_samples(predictions: Predictions) -> None:
    """Raise `FoveaError` unless something was predicted."""
    if len(predictions) == 0:
        raise FoveaError(
            f"Not one image of the split '{predictions.about['split']}' could be read, so there "
            "is nothing to judge. data.check=true lists what is wrong with the files."
        )
