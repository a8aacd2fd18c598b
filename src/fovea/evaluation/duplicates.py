"""What near-duplicates in train do to a score, and a sheet to see them on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fovea.evaluation.figures import BAD, FAINT, GOOD, shorten
from fovea.evaluation.predictions import Predictions
from fovea.evaluation.sheets import Tile, plot_sheet
from fovea.pages import percent

_SIDE = 224
"""Of the squares that both pictures are stretched to, in pixels: copies differ in their shape."""
_GAP = 8
_ROOM = 108
"""Height in pixels of a pair on the sheet."""


@dataclass(frozen=True)
class DuplicateEffect:
    """A score with and without the images that are in train as well.

    Attributes:
        duplicates: images of the split with a near-duplicate.
        samples: images of the split.
        top1: accuracy on all of them.
        top1_without: accuracy without the duplicates; None where nothing else is left.
        top1_of_duplicates: accuracy on the duplicates alone; None where there are none.
    """

    duplicates: int
    samples: int
    top1: float
    top1_without: float | None
    top1_of_duplicates: float | None

    def sentence(self, split: str) -> str:
        """Return it in words, such as "3 of 90 test images have a near-duplicate in train; …"."""
        head = f"{self.duplicates:,} of {self.samples:,} {split} images"
        if not self.duplicates:
            return f"None of {self.samples:,} {split} images has a near-duplicate in train."
        if self.top1_without is None:
            return f"{head} have a near-duplicate in train: nothing is left without them."
        return (
            f"{head} have a near-duplicate in train; without them top-1 is "
            f"{percent(self.top1_without)} instead of {percent(self.top1)}."
        )


def effect_of_duplicates(predictions: Predictions, indices: Iterable[int]) -> DuplicateEffect:
    """Return the accuracy of ``predictions`` with and without the samples ``indices``."""
    twice = torch.isin(predictions.indices, torch.tensor(sorted(indices), dtype=torch.int64))
    correct = predictions.correct.double()
    return DuplicateEffect(
        duplicates=int(twice.sum()),
        samples=len(predictions),
        top1=float(correct.mean()),
        top1_without=float(correct[~twice].mean()) if (~twice).any() else None,
        top1_of_duplicates=float(correct[twice].mean()) if twice.any() else None,
    )


def plot_pairs(
    pairs: pd.DataFrame,
    images_of: Callable[[int], tuple[Tensor, Tensor]],
    path: Path | str,
    title: str,
    count: int = 25,
) -> None:
    """Draw pairs of near-duplicates side by side, evenly drawn from the most to the least similar.

    Args:
        pairs: a row a pair, the most similar first, with ``path``, ``label``, ``twin_label``,
            ``distance``, ``similarity`` and ``mirrored``.
        images_of: gives the two (3, h, w) uint8 images of a row by its number.
        path: of the PNG to write.
        title: above all.
        count: how many pairs at most.
    """
    shown = torch.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().long().tolist()
    tiles = [_tile(number, pairs.iloc[number]) for number in shown]
    plot_sheet(tiles, lambda number: _side_by_side(*images_of(number)), path, title, room=_ROOM)


def _tile(number: int, pair: pd.Series) -> Tile:
    same = pair["label"] == pair["twin_label"]
    labels = str(pair["label"]) if same else f"{pair['label']} / {pair['twin_label']}"
    facts = f"{pair['similarity']:.2f} · {pair['distance']} bits"
    lines: Sequence[tuple[str, str]] = [
        (shorten(labels, 34), GOOD if same else BAD),
        (facts + (" · mirrored" if pair["mirrored"] else ""), FAINT),
    ]
    return Tile(number, lines, Path(str(pair["path"])).name)


def _side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Return both images (3, h, w) uint8 as squares, side by side."""
    mode = transforms.InterpolationMode
    squares = [
        transforms.resize(
            image,
            [_SIDE, _SIDE],
            interpolation=mode.NEAREST if max(image.shape) * 3 <= _SIDE else mode.BILINEAR,
            antialias=True,
        )
        for image in (left, right)
    ]
    gap = torch.full((3, _SIDE, _GAP), 255, dtype=torch.uint8)
    return torch.cat([squares[0], gap, squares[1]], dim=2)
