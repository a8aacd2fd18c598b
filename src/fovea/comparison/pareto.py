"""What accuracy costs: images seen, time, parameters, operations; and who gets most for it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from fovea.comparison.entries import Entry, read_settings
from fovea.comparison.palette import colour
from fovea.errors import FoveaError
from fovea.evaluation.figures import FAINT, INK, new_figure, shorten

COSTS = {
    "images": "images seen in training",
    "seconds": "training time (s)",
    "parameters": "parameters",
    "flops": "operations an image (two a multiply-add)",
}
"""Columns of a table of costs, with what each is."""


def read_costs(entry: Entry) -> dict[str, float]:
    """Return what a network and its training cost, for each of `COSTS`; NaN for what is not known.

    Args:
        entry: its predictions may say what was measured; its run's folder says the rest.
    """
    measured = entry.results.about.get("cost") or {}
    network = {name: measured.get(name) for name in ("parameters", "flops")}
    if network["parameters"] is None:
        network["parameters"] = entry.summary.get("parameters")
    seconds = _number(entry.summary.get("seconds"))
    images = math.nan if entry.folder is None else _images_seen(entry.folder)
    return {
        "images": images,
        "seconds": seconds,
        **{name: _number(value) for name, value in network.items()},
    }


def hardware(folder: Path) -> str:
    """Return what the run in ``folder`` ran on; an empty string if that is not known."""
    try:
        record = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return str(record["gpus"] or record["cpu"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _images_seen(folder: Path) -> float:
    """Return optimiser steps x global batch."""
    try:
        steps = pd.read_csv(folder / "metrics.csv", usecols=["step"])["step"].max() + 1
    except (OSError, ValueError):
        return math.nan
    return _number(steps) * _number(read_settings(folder).get("data.batch_size"))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def pareto_front(costs: ArrayLike, scores: ArrayLike) -> NDArray[np.bool_]:
    """Return (N,) bool: whether no other is as cheap and as good, and better in one of both.

    Of equals all are on it; NaN is not.
    """
    x, y = np.asarray(costs, dtype=float), np.asarray(scores, dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    beaten = [
        bool(((x[known] <= a) & (y[known] >= b) & ((x[known] < a) | (y[known] > b))).any())
        for a, b in zip(x, y, strict=True)
    ]
    return known & ~np.array(beaten, dtype=bool)


def plot_pareto(
    table: pd.DataFrame,
    path: Path | str,
    score: str = "top1",
    costs: Sequence[str] = tuple(COSTS),
) -> list[str]:
    """Draw ``score`` over each cost in a panel; a line joins those that none beats in both.

    Args:
        table: a row a system: ``name``, ``score`` (a share in [0, 1]), one column a cost, and
            perhaps ``low`` and ``high``, the interval of the score.
        path: of the PNG to write.
        score: column that is drawn upright.
        costs: columns; a cost that fewer than two systems tell is left out, and one that is the
            same for all.

    Returns:
        a note for each cost, and each system, that could not be drawn.

    Raises:
        FoveaError: no cost is known of two systems.
    """
    shown, notes = _drawable(table, costs)
    if not shown:
        raise FoveaError("There is no cost to draw: " + " ".join(notes))
    with new_figure(path, 4.4 * len(shown), 3.8) as figure:
        panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
        for axes, cost in zip(panels, shown, strict=True):
            _draw(axes, table.reset_index(drop=True), cost, score)
        panels[0].set_ylabel(score)
        panels[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        figure.suptitle(
            "Line: no other is as good and as cheap", x=0.01, ha="left", fontsize=9, color=FAINT
        )
    return notes


def _drawable(table: pd.DataFrame, costs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the costs that can be drawn, and notes on what cannot."""
    notes = []
    shown = []
    for cost in costs:
        known = table[cost].notna() if cost in table else pd.Series(False, index=table.index)
        title = COSTS.get(cost, cost)
        if known.sum() < 2:
            notes.append(f"No picture of accuracy over {title}: fewer than two systems tell them.")
        elif table.loc[known, cost].nunique() < 2:
            notes.append(f"No picture of accuracy over {title}: the same for all systems.")
        else:
            shown.append(cost)
            notes += [f"{name} does not tell its {title}." for name in table.loc[~known, "name"]]
    return shown, notes


def _draw(axes: Axes, table: pd.DataFrame, cost: str, score: str) -> None:
    x, y = table[cost].to_numpy(float), table[score].to_numpy(float)
    front = pareto_front(x, y)
    order = np.flatnonzero(front)[np.argsort(x[front], kind="stable")]
    axes.plot(x[order], y[order], drawstyle="steps-post", color=INK, lw=1, alpha=0.6, zorder=1)
    inks = colour(y.tolist())
    for i in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
        if {"low", "high"} <= set(table.columns):
            axes.plot([x[i]] * 2, table.loc[i, ["low", "high"]], color=inks[i], lw=1, alpha=0.5)
        axes.plot(x[i], y[i], "o", color=inks[i] if front[i] else "white", mec=inks[i], ms=6)
        axes.annotate(
            shorten(str(table.loc[i, "name"]), 24), (x[i], y[i]), xytext=(5, 4),
            textcoords="offset points", fontsize=8 if len(table) <= 12 else 6.5, color=inks[i],
        )  # fmt: skip
    axes.set_xlabel(COSTS.get(cost, cost))
    axes.grid(alpha=0.25)
    axes.margins(x=0.12, y=0.1)
    known = x[np.isfinite(x)]
    if known.min() > 0 and known.max() > 5 * known.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
