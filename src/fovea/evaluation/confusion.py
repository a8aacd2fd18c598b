"""The confusion matrix as a picture that can be read at 10, 100 and 1000 classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fovea.evaluation.figures import BAD, FAINT, INK, new_figure, shorten
from fovea.evaluation.predictions import Predictions

_COUNTS_UP_TO = 30
"""With more classes, no numbers fit into the cells."""
_NAMES_UP_TO = 120
"""With more classes, no names fit along the sides."""
_CELLS = 250
"""With more classes than this, neighbouring ones share a cell."""
_LISTED = 30


def count_confusions(predictions: Predictions) -> NDArray[np.int64]:
    """Return (K, K) counts: row the true class, column the predicted one."""
    k = predictions.num_classes
    pairs = predictions.labels * k + predictions.predicted
    return pairs.bincount(minlength=k * k).reshape(k, k).numpy()


def plot_confusion_matrix(
    predictions: Predictions, class_names: Sequence[str], path: Path | str
) -> None:
    """Draw the confusion matrix, and beside it the most frequent confusions by name.

    Blue on the diagonal: share of the class that was recognised. Red elsewhere: share that was
    taken for another class, on a scale of its own, since mistakes are what one looks for. Up to 30
    classes the cells hold counts. Beyond 250 classes a cell stands for several neighbours and shows
    the largest value among them.

    Args:
        predictions: of N >= 1 samples.
        class_names: K names, in the order of the class numbers.
        path: of the PNG to write.
    """
    counts = count_confusions(predictions)
    k = len(counts)
    inches_per_class = 0.45 if k <= 15 else 0.36 if k <= _COUNTS_UP_TO else 0.13
    margin = 1.8 if k <= _COUNTS_UP_TO else 0
    side = float(np.clip(margin + inches_per_class * k, 4.5, 13))
    scale = max(1.0, side / 9)
    with new_figure(path, side + 4.2 * scale, side) as figure:
        matrix, listing = figure.subplots(1, 2, width_ratios=[side, 3.4 * scale])
        _draw_matrix(matrix, counts, class_names, side)
        _draw_list(listing, counts, class_names, min(_LISTED, int(side * 4)), 8 * scale)
        figure.suptitle(
            f"Confusion matrix: {int(np.trace(counts)):,} of {len(predictions):,} right "
            f"({np.trace(counts) / max(1, len(predictions)):.2%})",
            fontweight="bold",
            fontsize=11 * scale,
        )


def _draw_matrix(
    axes: Axes, counts: NDArray[np.int64], class_names: Sequence[str], side: float
) -> None:
    k = len(counts)
    samples = counts.sum(axis=1)
    per_cell = -(-k // _CELLS)
    colours, worst = _colour(counts / np.maximum(1, samples)[:, None], samples > 0, per_cell)
    axes.imshow(colours, interpolation="nearest", extent=(-0.5, k - 0.5, k - 0.5, -0.5))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    legend = f", red: confused (full red at {worst:.0%})" if worst else ""
    axes.set_title(f"blue: recognised{legend}", fontsize=9, fontweight="normal")
    axes.spines[:].set_visible(True)
    if k <= _NAMES_UP_TO:
        size = 9 if k <= 15 else 8.5 if k <= _COUNTS_UP_TO else 7
        names = [shorten(name, 20) for name in class_names]
        fits = max(map(len, names)) * 0.1 < 0.75 * side / k
        axes.set_xticks(range(k), names, fontsize=size, rotation=0 if fits else 90)
        axes.set_yticks(range(k), names, fontsize=size)
        axes.tick_params(length=2, pad=1)
    else:
        pooled = f"; a cell is the worst of {per_cell} x {per_cell}" if per_cell > 1 else ""
        axes.set_xlabel(f"predicted (class number{pooled})")
        axes.set_ylabel("true (class number)")
    if k <= _COUNTS_UP_TO:
        _write_counts(axes, counts, colours)


def _colour(
    share: NDArray[np.float64], present: NDArray[np.bool_], per_cell: int
) -> tuple[NDArray[np.float64], float]:
    """Return (M, M, 3) colours of the cells and the off-diagonal share that is full red.

    A cell of several classes has the colour of the worst among them: the most frequent confusion,
    or, on the diagonal, the class that is recognised least.
    """
    identity = np.eye(len(share))
    off = share * (1 - identity)
    worst = float(off.max())
    wrong = _pool(off, per_cell)
    missed = np.diag(_pool(np.diag(np.where(present, 1 - np.diag(share), 0)), per_cell))
    # The square root lifts rare confusions off the white ground.
    cells = colormaps["Reds"](np.sqrt(wrong / max(worst, 1e-12)) * 0.85)[..., :3]
    cells[wrong == 0] = 1
    diagonal = np.arange(len(missed))
    cells[diagonal, diagonal] = colormaps["Blues"]((1 - missed) * 0.8)[..., :3]
    return cells, worst


def _pool(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the largest value of each ``size`` x ``size`` block; the last ones may be smaller."""
    short = -len(values) % size
    padded = np.pad(values, (0, short))
    blocks = len(padded) // size
    return padded.reshape(blocks, size, blocks, size).max(axis=(1, 3))


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


def _draw_list(
    axes: Axes,
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    lines: int,
    size: float,
) -> None:
    """Write the most frequent confusions: count, share of the true class, names."""
    axes.set_axis_off()
    axes.set_title("most frequent confusions", fontsize=size + 1)
    off = counts * (1 - np.eye(len(counts), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:lines]
    totals = np.maximum(1, counts.sum(axis=1))
    for i, (row, column) in enumerate(zip(*np.unravel_index(order, off.shape), strict=True)):
        if off[row, column] == 0:
            break
        y = 1 - (i + 0.7) / lines
        text = f"{shorten(class_names[row], 20)} → {shorten(class_names[column], 20)}"
        axes.text(0.0, y, f"{off[row, column]}", fontsize=size, color=BAD, weight="bold")
        axes.text(0.13, y, f"{off[row, column] / totals[row]:.0%}", fontsize=size, color=FAINT)
        axes.text(0.26, y, text, fontsize=size)
    if not off.any():
        axes.text(0, 0.95, "none", fontsize=size)
