"""Pictures of a comparison: scores, differences, and how far the runs agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fovea.comparison.compare import Comparison
from fovea.comparison.pairs import Pair
from fovea.evaluation.figures import BAD, FAINT, GOOD, INK, new_figure, shorten

_PAIRS = 15
"""With more pairs, only those of the best system are drawn."""
_NUMBERS_UP_TO = 16
"""With more runs, no numbers fit into the cells of a matrix."""


def plot_scores(comparison: Comparison, path: Path | str) -> None:
    """Draw each system's top-1 with its 95 % interval, and its single runs as dots, best on top."""
    estimates = comparison.scores["top1"]
    order = np.argsort([estimate.value for estimate in estimates], kind="stable")
    with new_figure(path, 7, 1.1 + 0.3 * len(order)) as figure:
        axes = figure.subplots()
        for y, i in enumerate(order):
            system, estimate = comparison.systems[i], estimates[i]
            low, high = comparison.interval(i)
            axes.plot([100 * low, 100 * high], [y, y], color=GOOD, lw=2, alpha=0.5)
            axes.plot(100 * estimate.value, y, "D", color=GOOD, ms=5, zorder=3)
            if len(system.entries) > 1:
                singles = [100 * entry.results.correct.mean() for entry in system.entries]
                axes.plot(singles, [y] * len(singles), "o", color=INK, ms=3, alpha=0.6, zorder=4)
        names = [shorten(comparison.systems[i].title, 48) for i in order]
        axes.set_yticks(range(len(order)), names)
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_xlabel(f"top-1 on {comparison.split}, % (95 % interval; dots: single runs)")
        axes.grid(axis="x", alpha=0.25)


def plot_differences(comparison: Comparison, path: Path | str) -> None:
    """Draw the differences in top-1 with their 95 % intervals, those that may be claimed in blue.

    A grey bar spans the differences that would probably not have been shown. Beyond 15 pairs, only
    those with the best system.
    """
    pairs = list(comparison.pairs)
    if len(pairs) > _PAIRS:
        pairs = [pair for pair in pairs if comparison.best in (pair.first, pair.second)]
    with new_figure(path, 7, 1.2 + 0.3 * len(pairs)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=INK, lw=0.8)
        for y, pair in enumerate(reversed(pairs)):
            _draw_difference(axes, y, pair)
        letters = [system.letter for system in comparison.systems]
        names = [f"{letters[pair.second]} − {letters[pair.first]}" for pair in reversed(pairs)]
        axes.set_yticks(range(len(pairs)), names)
        axes.set_ylim(-0.6, len(pairs) - 0.4)
        axes.set_xlabel(
            "difference in top-1, points (95 % interval; blue: shown; grey: too small to be shown)"
        )
        axes.grid(axis="x", alpha=0.25)


def _draw_difference(axes: Axes, y: int, pair: Pair) -> None:
    difference = pair.differences["top1"]
    low, high = pair.interval("top1")
    if np.isfinite(pair.detectable):
        reach = 100 * pair.detectable
        axes.barh(y, 2 * reach, left=-reach, height=0.7, color=FAINT, alpha=0.18, lw=0)
    ink = GOOD if pair.shown else BAD
    axes.plot([100 * low, 100 * high], [y, y], color=ink, lw=2, alpha=0.5)
    axes.plot(100 * difference.value, y, "D", color=ink, ms=5)


def plot_agreement(comparison: Comparison, path: Path | str) -> None:
    """Draw three matrices of the runs: equal predictions, Cohen's kappa, error consistency."""
    agreement = comparison.agreement
    panels = {
        "same class predicted, %": 100 * agreement.equal,
        "Cohen's kappa": agreement.kappa,
        "error consistency": agreement.error_consistency,
    }
    names = comparison.run_names
    side = float(np.clip(0.45 * len(names), 2.4, 6))
    with new_figure(path, 3 * (side + 0.9) + 0.4, side + 0.9) as figure:
        grid = figure.subplots(1, 3, sharey=True)
        for axes, (title, values) in zip(grid, panels.items(), strict=True):
            _draw_matrix(axes, values, names, digits=0 if "%" in title else 2)
            axes.set_title(title)


def _draw_matrix(
    axes: Axes, values: NDArray[np.float64], names: Sequence[str], digits: int
) -> None:
    """Draw (M, M) ``values``; the diagonal, which says nothing, stays white."""
    off = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    known = off[np.isfinite(off)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    image = axes.imshow(off, cmap="Blues", vmin=low - 0.3 * (high - low) - 1e-9, vmax=high)
    size = 8 if len(names) <= _NUMBERS_UP_TO else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(names) > _NUMBERS_UP_TO:
        assert axes.figure is not None
        axes.figure.colorbar(image, ax=axes, shrink=0.7)
        return
    for (row, column), value in np.ndenumerate(off):
        if np.isfinite(value):
            dark = value > (low + high) / 2 and high > low
            axes.text(
                column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=7.5,
                color="white" if dark else INK,
            )  # fmt: skip
