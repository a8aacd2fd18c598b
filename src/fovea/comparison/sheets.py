"""The samples on which two systems disagree, as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fovea.comparison.systems import System
from fovea.evaluation.figures import BAD, FAINT, GOOD, shorten
from fovea.evaluation.sheets import Tile, plot_sheet


def disagreements(right: System, wrong: System) -> NDArray[np.int64]:
    """Return (M,) rows on which ``right`` is right more often than ``wrong``, the clearest first.

    By the share of their runs that are right, then by the mean confidence of ``wrong``.
    """
    share = _share_right(right) - _share_right(wrong)
    confidence = np.stack([entry.results.confidence for entry in wrong.entries]).mean(axis=0)
    rows = np.flatnonzero(share > 0)
    return rows[np.lexsort((-np.nan_to_num(confidence[rows]), -share[rows]))]


def plot_disagreements(
    right: System,
    wrong: System,
    images_of: Callable[[int], Tensor],
    path: Path | str,
    count: int = 15,
) -> None:
    """Draw samples that ``right`` recognises and ``wrong`` does not, with what both say.

    Args:
        right: a system.
        wrong: another one.
        images_of: gives the (C, h, w) uint8 image of a sample by its index.
        path: of the PNG to write.
        count: how many at most; those of `disagreements` that come first.
    """
    rows = disagreements(right, wrong)
    title = f"{right.letter} right, {wrong.letter} wrong: {len(rows):,} samples"
    if len(rows) > count:
        title += f", {count} of them"
    tiles = [_tile(right, wrong, row) for row in rows[:count].tolist()]
    plot_sheet(tiles, images_of, path, title)


def _share_right(system: System) -> NDArray[np.float64]:
    """Return (N,) the share of the system's runs that are right."""
    correct = np.stack([entry.results.correct for entry in system.entries])
    return correct.mean(axis=0, dtype=np.float64)


def _tile(right: System, wrong: System, row: int) -> Tile:
    results = right.entries[0].results
    true = shorten(results.names[int(results.labels[row])], 24)
    lines = [
        (f"true {true}", FAINT),
        (_says(right, row, True), GOOD),
        (_says(wrong, row, False), BAD),
    ]
    index = int(results.indices[row])
    return Tile(index, lines, Path(results.paths[row] if results.paths else str(index)).name)


def _says(system: System, row: int, correct: bool) -> str:
    """Return what most of the runs say that are right (or wrong), and how sure or many they are."""
    every = [entry.results for entry in system.entries]
    chosen = [results for results in every if results.correct[row] == correct]
    votes = np.bincount([int(results.predicted[row]) for results in chosen])
    guess = int(votes.argmax())
    name = shorten(every[0].names[guess], 18)
    if len(every) > 1:
        return f"{system.letter}: {name} · {votes[guess]} of {len(every)}"
    return f"{system.letter}: {name} · {every[0].confidence[row]:.1%}"
