"""A table of runs as a page: it sorts, filters, and draws the curves of chosen runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from fovea.errors import FoveaError
from fovea.pages import write_page
from fovea.pages.tables import MISSING, Cell, address
from fovea.runs.metrics import Columns, read_columns
from fovea.runs.online import history_wandb
from fovea.runs.ranking import Order, one_line, short_names
from fovea.runs.terminal import written

MOST_POINTS = 500_000
"""Of all curves of a page together: about 4 MB."""

MOST_FETCHED = 100
"""Runs of W&B whose curves a page has, the first of its table: each costs requests."""

_OF_A_CURVE = (20, 300)
"""The fewest points a curve is thinned to, and the most that can be told apart on a screen."""

_LARGEST_VALUE = 1e308
"""Still finite when it is rounded."""

_LARGEST_STEP = 2**53
"""From here on a browser's numbers are not exact."""


def write_leaderboard(
    path: Path | str,
    table: pd.DataFrame,
    columns: Sequence[str],
    order: Order,
    source: str,
    wandb: bool = False,
) -> Path:
    """Write a page with ``table`` and the curves of its runs to ``path``, and return that.

    Args:
        path: of the HTML file, which needs no other file and no network.
        table: of `fovea.runs.load`, sorted.
        columns: to show; the first leads to the run's report or folder.
        order: by what the table is sorted.
        source: what the runs are of, for the title.
        wandb: whether ``table`` is of `fovea.runs.load_wandb`: curves are fetched from there, of
            the first `MOST_FETCHED` runs.

    Raises:
        FoveaError: the file can't be written, or W&B can't be reached.
    """
    path = Path(path)
    states = table["state"].value_counts()
    heads = short_names(columns)
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in columns]
    rows = [
        {
            "cells": [_cell(name, row[name]) for name in columns],
            "link": _link(row, path.parent),
            "title": one_line(f"{row['evidence']}; {row['error'] or 'no error'}"),
        }
        for row in table.to_dict("records")
    ]
    places = table["path"].tolist()
    curves = _fetched_curves(places) if wandb else read_curves(places)
    data = {"curves": curves, "monitor": order.name, "names": [str(name) for name in table["id"]]}
    try:
        return write_page(
            path,
            "leaderboard.html.j2",
            title=f"Runs of {one_line(source)}",
            heads=[{"text": heads[name], "title": one_line(name)} for name in columns],
            numeric=numeric,
            sorted_by=None if order.name not in columns else list(columns).index(order.name),
            order=order,
            states=[f"{count} {one_line(str(state))}" for state, count in states.items()],
            rows=rows,
            data=as_json(data),
            note=f"The first {MOST_FETCHED} have curves." if len(curves) < len(places) else None,
        )
    except OSError as error:
        raise FoveaError(f"The page can't be written to {path}: {error.strerror}") from error


def as_json(value: Any) -> Markup:
    """Return ``value`` as JSON that can stand inside of ``<script>``."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def read_curves(folders: Sequence[str]) -> list[dict[str, Any]]:
    """Return the curves of each run, thinned, empty where there are none.

    Of each: ``steps``, the lists of optimiser steps (0-based) that curves share, and ``metrics``,
    name -> [which of these lists, values]. Of long runs every n-th value and the last are kept.
    Left out are metrics of other splits than train and val, and those that never change.
    """
    return _within_budget([_curves(_columns(folder)) for folder in folders])


def _fetched_curves(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the same of runs of W&B, of the first `MOST_FETCHED`."""
    found = []
    for path in paths[:MOST_FETCHED]:
        table = history_wandb(path)
        cells = {
            str(name): ["" if pd.isna(value) else str(value) for value in table[name].tolist()]
            for name in table
        }
        steps = [f"{float(step):.0f}" if step else "" for step in cells["step"]]
        found.append(_curves({**cells, "step": steps}))
    return _within_budget(found)


def _columns(folder: str) -> Columns:
    try:
        return read_columns(Path(folder, "metrics.csv").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # its row says so
        return {}


def _curves(columns: Columns) -> dict[str, Any]:
    """Return one run's curves with the most points that can be told apart.

    At once, since the text of all runs together fills the memory.
    """
    steps: list[list[int]] = []
    metrics: dict[str, list[Any]] = {}
    for name, cells in columns.items():
        if not name.startswith(("val/", "train/")) or len(set(filter(None, cells))) < 2:
            continue
        try:
            values = [(at, float(cell)) for at, cell in enumerate(cells) if cell]
            finite = [(at, value) for at, value in values if abs(value) < _LARGEST_VALUE]
            kept = [finite[place] for place in _picked(len(finite), _OF_A_CURVE[1])]
            where = [int(columns["step"][at]) for at, _ in kept]
        except ValueError:  # a cell that is no number
            continue
        if max(where, default=0) >= _LARGEST_STEP:
            continue
        if where not in steps:
            steps.append(where)
        metrics[name] = [steps.index(where), [float(f"{value:.5g}") for _, value in kept]]
    return {"steps": steps, "metrics": metrics}


def _within_budget(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``runs`` with fewer points where they have more than `MOST_POINTS` together."""
    count = sum(len(run["metrics"]) for run in runs)
    fewest, most = _OF_A_CURVE
    points = max(fewest, min(most, MOST_POINTS // max(1, count)))
    return [
        {
            "steps": [_thinned(steps, points) for steps in run["steps"]],
            "metrics": {
                name: [at, _thinned(values, points)]
                for name, (at, values) in run["metrics"].items()
            },
        }
        for run in runs
    ]


def _thinned(values: list[Any], points: int) -> list[Any]:
    return [values[at] for at in _picked(len(values), points)]


def _picked(count: int, points: int) -> Iterable[int]:
    """Return every n-th of ``count`` places, and the last: about ``points``."""
    if count <= points + 1:  # as it was picked before
        return range(count)
    every = math.ceil(count / points)
    return dict.fromkeys([*range(0, count, every), count - 1])


def _cell(name: str, value: Any) -> Cell:
    text = written(name, value) or MISSING
    if isinstance(value, pd.Timestamp) and value is not pd.NaT:
        return Cell(text, value.timestamp())
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text, float(value) if number and math.isfinite(value) else None)


def _link(row: dict[str, Any], folder: Path) -> str | None:
    """Return the way from ``folder`` to the report of a run, or to the run; None if it is gone."""
    run = Path(row["path"])
    for target in (run / "report" / "report.html", run / "report.html", run):
        if os.path.exists(target):
            return address(os.path.relpath(target, folder))
    return None
