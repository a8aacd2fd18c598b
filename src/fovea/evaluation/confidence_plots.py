"""What the stated probabilities are worth: reliability diagram, and accuracy by confidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fovea.evaluation.figures import BAD, FAINT, GOOD, INK, new_figure


def plot_reliability(bins: Mapping[str, pd.DataFrame], path: Path | str) -> None:
    """Draw a reliability diagram for each of ``bins`` side by side, with the samples of each bin.

    On the diagonal a network is right as often as it says. A bar is the accuracy of a bin; what is
    missing to the diagonal is over-confidence (red), what stands above it is caution (hatched).

    Args:
        bins: by title, as `reliability` gives them.
        path: of the PNG to write.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", fig. 1.
    """
    with new_figure(path, 4 * len(bins) + 0.4, 5) as figure:
        grid = figure.subplots(2, len(bins), squeeze=False, sharex=True, height_ratios=[3, 1])
        for column, (title, table) in enumerate(bins.items()):
            _draw_accuracy(grid[0, column], table)
            grid[0, column].set_title(title, fontsize=9, fontweight="normal")
            _draw_samples(grid[1, column], table)
        grid[0, 0].set_ylabel("accuracy in the bin")
        grid[1, 0].set_ylabel("samples")


def _draw_accuracy(axes: Axes, table: pd.DataFrame) -> None:
    used = table[table["samples"] > 0]
    middle, width = (used["low"] + used["high"]) / 2, used["high"] - used["low"]
    accuracy, confidence = used["accuracy"], used["confidence"]
    over = (confidence - accuracy).clip(lower=0)
    bars = {"x": middle, "width": width * 0.92}
    axes.bar(**bars, height=accuracy, color=GOOD, alpha=0.75)
    axes.bar(**bars, height=over, bottom=accuracy, color=BAD, alpha=0.35, label="too sure")
    under = (accuracy - confidence).clip(lower=0)
    axes.bar(
        **bars,
        height=under,
        bottom=accuracy - under,
        facecolor="none",
        edgecolor="white",
        hatch="////",
        linewidth=0,
    )
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _draw_samples(axes: Axes, table: pd.DataFrame) -> None:
    middle, width = (table["low"] + table["high"]) / 2, table["high"] - table["low"]
    axes.bar(middle, table["samples"], width=width * 0.92, color=FAINT)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("confidence")


def plot_selective(curve: pd.DataFrame, marked: pd.DataFrame, path: Path | str) -> None:
    """Draw the accuracy of the most confident share of the samples against that share.

    Args:
        curve: columns ``coverage`` and ``accuracy``, as `coverage_curve` gives it.
        marked: rows of it that are marked with their numbers.
        path: of the PNG to write.
    """
    with new_figure(path, 6.5, 4) as figure:
        axes = figure.subplots()
        axes.plot(curve["coverage"], curve["accuracy"], color=GOOD)
        axes.plot(marked["coverage"], marked["accuracy"], "o", color=BAD, markersize=4)
        for coverage, accuracy in zip(marked["coverage"], marked["accuracy"], strict=True):
            axes.annotate(
                f"{accuracy:.1%}",
                (coverage, accuracy),
                xytext=(-5, -4),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
                color=BAD,
            )
        span = max(0.01, 1 - float(curve["accuracy"].min()))
        axes.set_ylim(1 - 1.15 * span, 1 + 0.03 * span)
        axes.set_xlim(0, 1.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("share of the samples that is answered, the surest first (coverage)")
        axes.set_ylabel("accuracy among them")
        axes.grid(alpha=0.25)
