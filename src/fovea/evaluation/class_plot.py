"""How well each class is recognised, as a picture that can be read at 10 and at 1000 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fovea.evaluation.figures import BAD, FAINT, GOOD, new_figure, shorten

_ALL_UP_TO = 40
"""With more classes only the worst ones are named, and all of them become one curve."""
_NAMED = 30


def plot_classes(table: pd.DataFrame, top1: float, path: Path | str) -> None:
    """Draw the accuracy of each class with its interval, the worst class at the top.

    With more than 40 classes the left side shows all of them as one falling curve in its band of
    intervals, and the right side the 30 worst by name. Classes without a sample are left out.

    Args:
        table: as `per_class_table` gives it.
        top1: accuracy over all samples, drawn as a line.
        path: of the PNG to write.
    """
    present = table[table["samples"] > 0].sort_values("recall", kind="stable")
    named = present if len(present) <= _ALL_UP_TO else present.head(_NAMED)
    height = 1.3 + 0.2 * max(5, len(named))
    if named is present:
        with new_figure(path, 7, height) as figure:
            _draw_named(figure.subplots(), named, top1, "accuracy of each class")
        return
    with new_figure(path, 12, height) as figure:
        curve, worst = figure.subplots(1, 2, width_ratios=[1, 1])
        _draw_curve(curve, present, top1)
        _draw_named(worst, named, top1, f"the {len(named)} worst")


def _draw_named(axes: Axes, table: pd.DataFrame, top1: float, title: str) -> None:
    """Draw a dot and its interval a class, names at the side, numbers of samples at the right."""
    places = np.arange(len(table))
    recall = table["recall"].to_numpy()
    below, above = recall - table["recall_low"], table["recall_high"] - recall
    axes.errorbar(
        recall,
        places,
        xerr=np.clip([below, above], 0, None),
        fmt="o",
        markersize=4,
        color=GOOD,
        ecolor=FAINT,
        elinewidth=1.2,
    )
    axes.axvline(top1, color=BAD, linewidth=0.8, linestyle="--")
    axes.set_yticks(places, [shorten(str(name), 28) for name in table["name"]], fontsize=8)
    axes.set_ylim(len(table) - 0.4, -0.6)
    for place, samples in zip(places, table["samples"], strict=True):
        axes.annotate(
            f"{samples:,}",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=FAINT,
        )
    axes.set_xlim(-0.02, 1.02)
    _finish(axes, f"{title}; bars: 95 % intervals, line: all samples, right: samples")


def _draw_curve(axes: Axes, table: pd.DataFrame, top1: float) -> None:
    """Draw all classes from the best to the worst."""
    best_first = table[::-1]
    places = np.arange(1, len(table) + 1)
    axes.fill_betweenx(
        places,
        best_first["recall_low"],
        best_first["recall_high"],
        color=GOOD,
        alpha=0.15,
        linewidth=0,
        step="mid",
    )
    axes.plot(best_first["recall"], places, color=GOOD)
    axes.axvline(top1, color=BAD, linewidth=0.8, linestyle="--")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, len(table) + 1)
    axes.set_ylabel("classes at least this accurate")
    axes.set_xlim(-0.02, 1.02)
    _finish(axes, f"all {len(table):,} classes; band: 95 % intervals, line: all samples")


def _finish(axes: Axes, title: str) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("accuracy of the class (recall)")
    axes.set_title(title, fontsize=9, fontweight="normal")
    axes.grid(axis="x", alpha=0.25)
