"""The two curves of a test with two outcomes: ROC, and precision against recall."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from fovea.evaluation.figures import BAD, FAINT, GOOD, new_figure

Point = tuple[float, float, str]
"""x and y in [0, 1], and what is written beside it."""


def plot_roc(
    curve: pd.DataFrame, area: float, path: Path | str, points: list[Point] | None = None
) -> None:
    """Draw sensitivity against 1 - specificity over all thresholds.

    Args:
        curve: columns ``fpr`` and ``tpr``, as `roc_curve` gives it.
        area: under it (AUROC).
        path: of the PNG to write.
        points: thresholds to mark.
    """
    with new_figure(path, 5, 5) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle="--")
        axes.plot(curve["fpr"], curve["tpr"], color=GOOD)
        axes.set_xlabel("1 − specificity (false positive rate)")
        axes.set_ylabel("sensitivity (true positive rate)")
        _finish(axes, f"ROC curve, area {area:.4f}", points or [])


def plot_precision_recall(
    curve: pd.DataFrame,
    area: float,
    prevalence: float,
    path: Path | str,
    points: list[Point] | None = None,
) -> None:
    """Draw precision against sensitivity over all thresholds.

    Args:
        curve: columns ``recall`` and ``precision``, as `precision_recall_curve` gives it.
        area: average precision.
        prevalence: share of positive samples: the precision of guessing, drawn as a line.
        path: of the PNG to write.
        points: thresholds to mark.
    """
    with new_figure(path, 5, 5) as figure:
        axes = figure.subplots()
        axes.axhline(prevalence, color=FAINT, linewidth=0.8, linestyle="--")
        axes.plot(curve["recall"], curve["precision"], color=GOOD, drawstyle="steps-post")
        axes.set_xlabel("sensitivity (recall)")
        axes.set_ylabel("precision (positive predictive value)")
        _finish(axes, f"precision and recall, average precision {area:.4f}", points or [])


def _finish(axes: Axes, title: str, points: list[Point]) -> None:
    """Set what both have in common; write beside a point on the side where there is room."""
    for x, y, text in points:
        axes.plot([x], [y], "o", color=BAD, markersize=5)
        right = x < 0.5
        axes.annotate(
            text,
            (x, y),
            xytext=(8 if right else -8, -14),
            textcoords="offset points",
            ha="left" if right else "right",
            fontsize=8,
            color=BAD,
        )
    axes.set_title(title)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
