"""The confusion matrix as a picture that can be read at 10, 100 and 1000 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fovea.evaluation.confusions import count_confusions, similarity_order, worst_pairs
from fovea.evaluation.figures import BAD, FAINT, INK, new_figure, shorten
from fovea.evaluation.predictions import Predictions

_COUNTS_UP_TO = 30
"""With more classes, no numbers fit into the cells."""
ORDERED_FROM = 16
"""From this many classes on, those that are confused stand side by side; fewer keep their order."""
_NAMES_UP_TO = 120
"""With more classes, only every n-th name fits along the sides."""
_CELLS = 250
"""With more classes than this, neighbouring ones share a cell."""
_LISTED = 30


def plot_confusion_matrix(
    predictions: Predictions, path: Path | str, order: NDArray[np.int64] | None = None
) -> None:
    """Draw the confusion matrix, and beside it the most frequent confusions by name.

    Blue on the diagonal: share of the class that was recognised. Red elsewhere: share that was
    taken for another class, on a scale of its own, since mistakes are what one looks for. From 16
    classes on they are ordered by similarity (`matrix_order`). Up to 30 classes the cells hold
    counts. Beyond 250 classes a cell stands for several neighbours, as if they were one class.

    Args:
        predictions: of N >= 1 samples.
        path: of the PNG to write.
        order: (K,) class numbers, if it has been computed already.
    """
    counts = count_confusions(predictions)
    order = matrix_order(counts) if order is None else order
    k = len(counts)
    inches_per_class = 0.45 if k <= 15 else 0.36 if k <= _COUNTS_UP_TO else 0.13
    margin = 1.8 if k <= _COUNTS_UP_TO else 0
    side = float(np.clip(margin + inches_per_class * k, 4.5, 13))
    scale = max(1.0, side / 9)
    pairs = worst_pairs(predictions, min(_LISTED, int(side * 4)))
    with new_figure(path, side + 4.2 * scale, side) as figure:
        matrix, listing = figure.subplots(1, 2, width_ratios=[side, 3.4 * scale])
        names = [predictions.names[number] for number in order]
        _draw_matrix(matrix, counts[np.ix_(order, order)], names, side)
        _draw_list(listing, pairs, min(_LISTED, int(side * 4)), 8 * scale)
        figure.suptitle(
            f"Confusion matrix: {int(np.trace(counts)):,} of {len(predictions):,} right "
            f"({np.trace(counts) / max(1, len(predictions)):.2%})",
            fontweight="bold",
            fontsize=11 * scale,
        )


def matrix_order(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (K,) class numbers in the order of the matrix's rows: by similarity from 16 on."""
    return similarity_order(counts) if len(counts) >= ORDERED_FROM else np.arange(len(counts))


def _draw_matrix(
    axes: Axes, counts: NDArray[np.int64], class_names: Sequence[str], side: float
) -> None:
    k = len(counts)
    samples = counts.sum(axis=1)
    per_cell = -(-k // _CELLS)
    colours, worst = _colour(counts / np.maximum(1, samples)[:, None], samples > 0, per_cell)
    axes.imshow(colours, interpolation="nearest", extent=(-0.5, k - 0.5, k - 0.5, -0.5))
    legend = f", red: confused (full red at {worst:.0%})" if worst else ""
    axes.set_title(f"blue: recognised{legend}", fontsize=9, fontweight="normal")
    axes.spines[:].set_visible(True)
    notes = ["ordered by similarity"] if k >= ORDERED_FROM else []
    every = 1 if k <= _NAMES_UP_TO else -(-k // 90)
    if every > 1:
        notes.append(f"every {every}th class is named")
    if per_cell > 1:
        notes.append(f"a cell stands for {per_cell} x {per_cell} classes")
    axes.set_xlabel(f"predicted{''.join(f'; {note}' for note in notes)}")
    axes.set_ylabel("true")
    size = 9 if k <= 15 else 8.5 if k <= _COUNTS_UP_TO else 7
    names = [shorten(name, 20) for name in class_names[::every]]
    fits = every == 1 and max(map(len, names)) * 0.1 < 0.75 * side / k
    axes.set_xticks(range(0, k, every), names, fontsize=size, rotation=0 if fits else 90)
    axes.set_yticks(range(0, k, every), names, fontsize=size)
    axes.tick_params(length=2, pad=1)
    if k <= _COUNTS_UP_TO:
        _write_counts(axes, counts, colours)


def _colour(
    share: NDArray[np.float64], present: NDArray[np.bool_], per_cell: int
) -> tuple[NDArray[np.float64], float]:
    """Return (M, M, 3) colours of the cells and the off-diagonal share that is full red.

    A cell of several classes has the mean over those in its row: off the diagonal of the share that
    is taken for any of those in its column, on the diagonal of the share that is recognised.
    """
    starts = np.arange(0, len(share), per_cell)
    classes = np.maximum(1, np.add.reduceat(present.astype(np.int64), starts))
    right = np.add.reduceat(np.diag(share), starts) / classes
    rows = np.add.reduceat(share, starts, axis=0) / classes[:, None]
    wrong = np.add.reduceat(rows, starts, axis=1)
    np.fill_diagonal(wrong, 0)
    worst = float(wrong.max())
    # The root lifts rare confusions off the white ground; among many cells they are but a haze.
    lift = 0.5 if per_cell == 1 else 0.8
    cells = colormaps["Reds"]((wrong / max(worst, 1e-12)) ** lift * 0.85)[..., :3]
    cells[wrong == 0] = 1
    diagonal = np.arange(len(wrong))
    cells[diagonal, diagonal] = colormaps["Blues"](right * 0.8)[..., :3]
    return cells, worst


def _write_counts(axes: Axes, counts: NDArray[np.int64], colours: NDArray[np.float64]) -> None:
    size = 9 if len(counts) <= 15 else 7.5
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = colours[row, column].mean() < 0.55
        axes.text(
            column,
            row,
            f"{counts[row, column]}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if dark else INK,
        )


def _draw_list(axes: Axes, pairs: pd.DataFrame, lines: int, size: float) -> None:
    """Write the most frequent confusions: count, share of the true class, names."""
    axes.set_axis_off()
    axes.set_title("most frequent confusions", fontsize=size + 1)
    for i, row in enumerate(pairs.itertuples()):
        y = 1 - (i + 0.7) / lines
        # Marks of left-to-right, or the arrow turns round between names written the other way.
        text = f"\u200e{shorten(row.true, 20)}\u200e → \u200e{shorten(row.predicted, 20)}"
        axes.text(0.0, y, f"{row.count}", fontsize=size, color=BAD, weight="bold")
        axes.text(0.13, y, f"{row.share:.0%}", fontsize=size, color=FAINT)
        axes.text(0.26, y, text, fontsize=size)
    if pairs.empty:
        axes.text(0, 0.95, "none", fontsize=size)
