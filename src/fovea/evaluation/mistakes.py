"""Sheets of pictures: the most confident mistakes, and the hits that were nearly missed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fovea.evaluation.figures import BAD, FAINT, GOOD, shorten
from fovea.evaluation.predictions import Predictions
from fovea.evaluation.selective import least_sure_hits, worst_mistakes
from fovea.evaluation.sheets import Tile, plot_sheet


def plot_mistakes(
    predictions: Predictions,
    images_of: Callable[[int], Tensor],
    path: Path | str,
    count: int = 25,
) -> None:
    """Draw the most confident mistakes: picture, predicted class with its probability, true class.

    Args:
        predictions: of one split; the last part of a sample's name is shown.
        images_of: gives the (C, h, w) uint8 image of a sample by its index, C 1 or 3.
        path: of the PNG to write.
        count: how many at most.
    """
    wrong = int((~predictions.correct & predictions.valid).sum())
    rows = worst_mistakes(predictions, count).tolist()
    title = f"{f'{wrong:,}' if wrong else 'No'} mistakes among {len(predictions):,}"
    if len(rows) < wrong:
        title += f", the {len(rows)} most confident"
    plot_sheet([_mistake(predictions, row) for row in rows], images_of, path, title)


def plot_least_sure_hits(
    predictions: Predictions,
    images_of: Callable[[int], Tensor],
    path: Path | str,
    count: int = 25,
) -> None:
    """Draw the right predictions of the lowest probability: picture, class, and the next best one.

    The arguments are those of `plot_mistakes`.
    """
    right = int(predictions.correct.sum())
    rows = least_sure_hits(predictions, count).tolist()
    title = f"{f'{right:,}' if right else 'No'} hits among {len(predictions):,}"
    if len(rows) < right:
        title += f", the {len(rows)} least sure"
    plot_sheet([_hit(predictions, row) for row in rows], images_of, path, title)


def _mistake(predictions: Predictions, row: int) -> Tile:
    true = shorten(predictions.names[int(predictions.labels[row])], 24)
    return _tile(predictions, row, BAD, (f"true {true}", GOOD))


def _hit(predictions: Predictions, row: int) -> Tile:
    guess = int(predictions.predicted[row])
    others = predictions.logits[row].index_fill(0, torch.tensor([guess]), -torch.inf)
    next_best = shorten(predictions.names[int(others.argmax())], 24)
    second = f"or {next_best}" if predictions.num_classes > 1 else ""
    return _tile(predictions, row, GOOD, (second, FAINT))


def _tile(predictions: Predictions, row: int, colour: str, second: tuple[str, str]) -> Tile:
    guess = shorten(predictions.names[int(predictions.predicted[row])], 20)
    says = f"pred {guess} · {float(predictions.confidence[row]):.1%}"
    name = Path(predictions.sample_names[row]).name
    return Tile(int(predictions.indices[row]), [(says, colour), second], name)
