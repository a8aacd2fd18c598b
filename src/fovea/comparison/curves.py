"""Learning curves of many runs in one picture: a line a system, a band for its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fovea.comparison.palette import colour, label_ends
from fovea.comparison.systems import group_folders
from fovea.errors import FoveaError
from fovea.evaluation.curves import in_epochs, set_scales, training_rows
from fovea.evaluation.figures import FAINT, new_figure, shorten

Band = Literal["range", "std"]
METRICS = ("train/loss", "val/loss", "val/top1")
_PANEL = 3.2
"""Inches."""
_LETTERS = 30
"""Of a label, at most."""
_POINTS = 300
"""A run's curve of more points than this is averaged into so many."""


def plot_learning_curves_of(
    runs: Mapping[str, Sequence[str | Path]] | Sequence[str | Path],
    path: Path | str,
    metrics: Sequence[str] = METRICS,
    band: Band = "range",
) -> list[str]:
    """Draw a panel for each metric: for each system the mean over its runs, and how they spread.

    A mean ends where the first of its runs ends, since the others alone would make it jump. With
    more than 7 systems the best 7 by the last panel have colours, the others are grey.

    Args:
        runs: run folders by the name of their system; or just run folders: those that differ in
            their seed only are one system then.
        path: of the PNG to write.
        metrics: columns of metrics.csv; those that no run has are left out.
        band: from the lowest to the highest run, or one standard deviation (n - 1) around the mean.

    Returns:
        a note for each run that could not be drawn.

    Raises:
        FoveaError: no run has any of the metrics.
    """
    groups = runs if isinstance(runs, Mapping) else group_folders(runs)
    tables, unit, notes = _read(groups)
    shown = [m for m in metrics if any(m in t for ts in tables.values() for t in ts)]
    if not shown:
        reason = f"There are no learning curves to draw: no run has logged {', '.join(metrics)}."
        raise FoveaError("\n  ".join([reason, *notes]))
    curves = {m: {name: _aligned(ts, m) for name, ts in tables.items()} for m in shown}
    colours = _colours(curves[shown[-1]], lowest="loss" in shown[-1])
    label_width = 0.5 + 0.065 * min(max(map(len, tables)), _LETTERS)
    height = max(3.4, 0.7 + 1.3 * _size(len(tables)) / 72 * len(tables))
    with new_figure(path, (_PANEL + label_width) * len(shown), height) as figure:
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, metric in zip(panels, shown, strict=True):
            axes.set_xlabel(unit)
            _draw(axes, metric, curves[metric], colours, band, height - 0.8)
    return notes


def _read(
    groups: Mapping[str, Sequence[str | Path]],
) -> tuple[dict[str, list[pd.DataFrame]], str, list[str]]:
    """Return each system's tables, by epochs or else by steps; which; notes on what has none."""
    tables: dict[str, list[pd.DataFrame]] = {}
    places: list[tuple[pd.Series, str]] = []
    notes = []
    for name, folders in groups.items():
        for folder in folders:
            try:
                table = training_rows(Path(folder) / "metrics.csv")
            except FoveaError as error:
                notes.append(str(error))
                continue
            places.append(in_epochs(table))
            tables.setdefault(name, []).append(table)
    label = "step" if "step" in [unit for _, unit in places] else "epoch"
    for table, (place, _) in zip(chain.from_iterable(tables.values()), places, strict=True):
        table.index = pd.Index(place if label == "epoch" else table["step"] + 1, name=label)
    return tables, label, notes


def _aligned(tables: Sequence[pd.DataFrame], metric: str) -> pd.DataFrame:
    """Return (rows, runs) of one metric, up to where the first run ends; maybe empty."""
    columns = []
    for table in tables:
        if metric not in table or (values := table[metric].dropna()).empty:
            continue
        bins = np.arange(len(values)) // math.ceil(len(values) / _POINTS)
        means = pd.DataFrame({"x": values.index, "y": values.to_numpy()}).groupby(bins).mean()
        columns.append(means.groupby("x")["y"].last())
    if not columns:
        return pd.DataFrame()
    together = pd.concat(columns, axis=1).sort_index()
    return together.interpolate(method="index", limit_area="inside").dropna()


def _colours(curves: Mapping[str, pd.DataFrame], lowest: bool) -> dict[str, str]:
    """Return a colour for each system, by where its mean ends; ``lowest``: less is better."""
    ends = [math.nan if t.empty else float(t.iloc[-1].mean()) for t in curves.values()]
    return dict(zip(curves, colour([-end if lowest else end for end in ends]), strict=True))


def _draw(
    axes: Axes,
    metric: str,
    curves: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    band: Band,
    height: float,
) -> None:
    drawn = {name: table for name, table in curves.items() if not table.empty}
    means = {name: table.mean(axis=1) for name, table in drawn.items()}
    for name, table in drawn.items():
        mean, ink, grey = means[name], colours[name], colours[name] == FAINT
        marker = "o" if len(table) <= 40 and not grey else None
        axes.plot(
            mean, color=ink, lw=0.8 if grey else 1.4, marker=marker, ms=2.5, zorder=2 if grey else 3
        )
        if table.shape[1] > 1:
            low, high = table.min(axis=1), table.max(axis=1)
            if band == "std":
                low, high = mean - table.std(axis=1), mean + table.std(axis=1)
            axes.fill_between(table.index, low, high, color=ink, alpha=0.15, lw=0)
    axes.set_title(metric)
    axes.grid(alpha=0.25)
    axes.margins(y=0.08)
    axes.set_xlim(0)
    set_scales(axes, pd.concat(list(means.values())), logarithmic="loss" in metric)
    label_ends(
        axes,
        [(float(mean.index[-1]), float(mean.iloc[-1])) for mean in means.values()],
        [
            shorten(name, _LETTERS) + (f" ({n})" if (n := drawn[name].shape[1]) > 1 else "")
            for name in means
        ],
        [colours[name] for name in means],
        height,
        _size(len(means)),
    )


def _size(labels: int) -> float:
    """Return the size of the letters of so many labels, in points."""
    return 8 if labels <= 12 else 6.5
