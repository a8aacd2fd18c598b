"""A sheet of the worst mistakes as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fovea.evaluation.figures import BAD, FAINT, GOOD, new_figure, shorten
from fovea.evaluation.predictions import Predictions

_TILE = 256
"""Longest side of a picture on the sheet, in pixels: larger ones are scaled down first."""


def worst_mistakes(predictions: Predictions, count: int) -> Tensor:
    """Return up to ``count`` rows of wrong predictions, the most confident first, as (M,) int64."""
    wrong = (~predictions.correct).nonzero().flatten()
    confidence = predictions.logits[wrong].softmax(dim=1).amax(dim=1)
    return wrong[confidence.argsort(descending=True, stable=True)[:count]]


def plot_mistakes(
    predictions: Predictions,
    images_of: Callable[[int], Tensor],
    names_of: Callable[[int], str],
    class_names: Sequence[str],
    path: Path | str,
    count: int = 25,
) -> None:
    """Draw the most confident mistakes: picture, predicted class with its probability, true class.

    Args:
        predictions: of one split.
        images_of: gives the (C, h, w) uint8 image of a sample by its index, C 1 or 3.
        names_of: gives a name for it, a path for instance; its last part is shown.
        class_names: K names, in the order of the class numbers.
        path: of the PNG to write.
        count: how many at most.
    """
    rows = worst_mistakes(predictions, count)
    columns = min(5, max(1, math.ceil(math.sqrt(len(rows)))))
    lines = math.ceil(len(rows) / columns)
    with new_figure(path, max(4.5, 1.9 * columns), 2.35 * lines + 0.5) as figure:
        wrong = int((~predictions.correct).sum())
        figure.suptitle(
            f"{f'{wrong:,}' if wrong else 'No'} mistakes among {len(predictions):,}"
            + (f", the {len(rows)} most confident" if len(rows) < wrong else ""),
            fontweight="bold",
        )
        grid = list(figure.subplots(max(1, lines), columns, squeeze=False).flat)
        for axes in grid:
            axes.set_axis_off()
            axes.set_anchor("N")
        for axes, row in zip(grid, rows.tolist(), strict=False):
            _draw(axes, predictions, row, images_of, class_names)
            name = Path(names_of(int(predictions.indices[row]))).name
            _write(axes, shorten(name, 28), y=0, offset=-9, size=6, colour=FAINT)


def _draw(
    axes: Axes,
    predictions: Predictions,
    row: int,
    images_of: Callable[[int], Tensor],
    class_names: Sequence[str],
) -> None:
    probability, guess = predictions.logits[row].softmax(dim=0).max(dim=0)
    try:
        pixels = _tile(images_of(int(predictions.indices[row])))
    except Exception as error:  # a picture that has gone does not spoil the sheet
        axes.text(0.5, 0.5, shorten(str(error), 60), ha="center", wrap=True, fontsize=6)
    else:
        smooth = "antialiased" if max(pixels.shape) > 64 else "nearest"
        axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    guessed = shorten(class_names[int(guess)], 20)
    true = shorten(class_names[int(predictions.labels[row])], 24)
    _write(axes, f"pred {guessed} · {float(probability):.1%}", y=1, offset=13, size=8, colour=BAD)
    _write(axes, f"true {true}", y=1, offset=3, size=8, colour=GOOD)


def _write(axes: Axes, text: str, y: float, offset: float, size: float, colour: str) -> None:
    """Write ``text`` in the middle, ``offset`` points above height ``y`` of the picture."""
    axes.annotate(
        text,
        (0.5, y),
        xycoords="axes fraction",
        xytext=(0, offset),
        textcoords="offset points",
        ha="center",
        fontsize=size,
        color=colour,
    )


def _tile(image: Tensor) -> Tensor:
    """Return ``image`` (C, h, w) as (h, w) or (h, w, 3) uint8, scaled down to the sheet's size."""
    longest = max(image.shape[-2:])
    if longest > _TILE:
        size = [max(1, side * _TILE // longest) for side in image.shape[-2:]]
        image = transforms.resize(image, size, antialias=True)
    return image[0] if len(image) == 1 else torch.movedim(image, 0, -1)
