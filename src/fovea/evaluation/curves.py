"""Learning curves out of a run's ``metrics.csv``."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullFormatter

from fovea.errors import FoveaError
from fovea.evaluation.figures import BAD, FAINT, GOOD, new_figure

_COLOURS = {"train": FAINT, "val": GOOD, "test": BAD}
_FIRST = ("loss", "top1", "top5", "balanced_accuracy")
_SMOOTH_FROM = 100
"""A training loss of more points than this is drawn pale, under its centred moving average."""


def plot_learning_curves(metrics_csv: Path | str, path: Path | str) -> None:
    """Draw each metric of ``metrics_csv`` in a panel of its own, its splits together, over epochs.

    Panels: loss, top-1, top-5 and so on, then whatever else was logged and did change. Evaluations
    after the end of training are left out. The best validation value is marked.

    Args:
        metrics_csv: columns ``epoch``, ``step``, and one for each metric (``split/name``).
        path: of the PNG to write.

    Raises:
        FoveaError: there is no such table.
    """
    table = training_rows(metrics_csv)
    panels = _panels(table)
    columns = min(3, len(panels)) or 1
    rows = math.ceil(len(panels) / columns) or 1
    x, label = in_epochs(table)
    with new_figure(path, 4.2 * columns, 2.9 * rows) as figure:
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, (title, names) in zip(grid, panels.items(), strict=False):
            _draw(axes, title, x, table[names])
            axes.set_xlabel(label)
            axes.set_xlim(0, x.max() * 1.03)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if not panels:
            figure.text(0.5, 0.5, "Nothing was logged in training.", ha="center")


def training_rows(metrics_csv: Path | str) -> pd.DataFrame:
    """Return the rows of a run's ``metrics.csv`` up to the end of its training.

    Raises:
        FoveaError: there is no such table.
    """
    try:
        table = pd.read_csv(metrics_csv)
    except (OSError, ValueError) as error:
        raise FoveaError(f"There are no learning curves to draw: {metrics_csv}: {error}") from error
    if not {"epoch", "step"} <= set(table.columns):
        raise FoveaError(
            f"{metrics_csv} has no columns 'epoch' and 'step': not a run's metrics.csv"
        )
    trained = table.filter(regex="^train/").notna().any(axis=1)
    if trained.any():  # what comes later is the evaluation of the best checkpoint
        table = table[table["step"] <= table["step"][trained].max()]
    return table


def _panels(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns to draw by the title of their panel, the usual ones first."""
    panels: dict[str, list[str]] = {}
    for name in table.columns.drop(["epoch", "step"]):
        if name.startswith("perf/"):
            continue  # how fast it went, not how well
        values = table[name].dropna()
        title = name.partition("/")[2] if name.startswith(("train/", "val/", "test/")) else name
        numbers = len(values) > 0 and pd.api.types.is_numeric_dtype(values)
        if numbers and (title in _FIRST or values.nunique() > 1):
            panels.setdefault(title, []).append(name)
    usual = [title for title in _FIRST if title in panels]
    return {title: panels[title] for title in dict.fromkeys([*usual, *panels])}


def in_epochs(table: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return each row's place in epochs passed, or in steps while no epoch is complete."""
    ends = table.groupby("epoch")["step"].max() + 1
    per_epoch = (ends / (ends.index + 1)).median()
    if len(ends) < 2:
        return table["step"] + 1, "step"
    return (table["step"] + 1) / per_epoch, "epoch"


def _draw(axes: Axes, title: str, x: pd.Series, values: pd.DataFrame) -> None:
    for name in values.columns:
        split = name.partition("/")[0]
        colour = _COLOURS.get(split, GOOD)
        line = values[name].dropna()
        at = x[line.index]
        marker = "o" if len(line) <= 40 else None
        label = split if split in _COLOURS else None
        if len(line) > _SMOOTH_FROM and name == "train/loss":
            axes.plot(at, line, color=colour, alpha=0.3, linewidth=0.6)
            line = line.rolling(len(line) // 25, center=True, min_periods=1).mean()
        axes.plot(at, line, color=colour, marker=marker, markersize=3, label=label)
        if split == "val":
            _mark_best(axes, at, line, lowest="loss" in title)
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.margins(y=0.12)
    set_scales(axes, values.stack(), logarithmic="loss" in title)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best", fontsize=8)


def set_scales(axes: Axes, values: pd.Series, logarithmic: bool) -> None:
    """Give ``axes`` of learning curves ticks fit for their ``values``.

    Args:
        axes: of one panel.
        values: all that are drawn in it.
        logarithmic: whether the upright axis may be, where the values span more than 1:50.
    """
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    if logarithmic and values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif values.max() >= 10_000:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _mark_best(axes: Axes, at: pd.Series, line: pd.Series, lowest: bool) -> None:
    if line.empty:
        return
    best = line.idxmin() if lowest else line.idxmax()
    axes.plot(at[best], line[best], "o", color=BAD, markersize=5, zorder=3)
    axes.annotate(
        f"best {line[best]:.4g}",
        (at[best], line[best]),
        textcoords="offset points",
        xytext=(-4, 8 if lowest else -12),
        ha="right",
        color=BAD,
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5},
    )
