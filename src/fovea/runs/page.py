"""A table of runs as a page: it sorts, filters, and draws the curves of chosen runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from fovea.errors import printable
from fovea.pages import write_page
from fovea.pages.tables import MISSING, Cell, address
from fovea.runs.metrics import read_columns
from fovea.runs.ranking import Order, short_names
from fovea.runs.terminal import written

MOST_POINTS = 500_000
"""Of all curves of a page together: about 4 MB."""

_OF_A_CURVE = (20, 300)
"""The fewest points a curve is thinned to, and the most that can be told apart on a screen."""


def write_leaderboard(
    path: Path | str, table: pd.DataFrame, columns: Sequence[str], order: Order, source: str
) -> Path:
    """Write a page with ``table`` and the curves of its runs to ``path``, and return that.

    Args:
        path: of the HTML file, which needs no other file and no network.
        table: of `fovea.runs.load`, sorted.
        columns: to show; the first leads to the run's report or folder.
        order: by what the table is sorted.
        source: what the runs are of, for the title.
    """
    path = Path(path)
    states = table["state"].value_counts()
    heads = short_names(columns)
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in columns]
    rows = [
        {
            "cells": [_cell(name, row[name]) for name in columns],
            "link": _link(row, path.parent),
            "title": printable(f"{row['evidence']}; {row['error'] or 'no error'}"),
        }
        for row in table.to_dict("records")
    ]
    curves = read_curves(table["path"].tolist())
    return write_page(
        path,
        "leaderboard.html.j2",
        title=f"Runs of {printable(source)}",
        heads=[{"text": heads[name], "title": name} for name in columns],
        numeric=numeric,
        sorted_by=None if order.name not in columns else list(columns).index(order.name),
        order=order,
        states=[f"{count} {printable(str(state))}" for state, count in states.items()],
        rows=rows,
        data=as_json({"curves": curves, "monitor": order.name, "names": _names(table)}),
    )


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
    tables = [_columns(folder) for folder in folders]
    count = sum(len(table) for table in tables)
    fewest, most = _OF_A_CURVE
    points = max(fewest, min(most, MOST_POINTS // max(1, count)))
    return [_thinned(table, points) for table in tables]


def _columns(folder: str) -> dict[str, list[str]]:
    try:
        columns = read_columns(Path(folder, "metrics.csv").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # its row says so
        return {}
    return {
        name: cells
        for name, cells in columns.items()
        if name == "step"
        or (name.startswith(("val/", "train/")) and len(set(filter(None, cells))) > 1)
    }


def _thinned(columns: dict[str, list[str]], points: int) -> dict[str, Any]:
    steps: list[list[int]] = []
    metrics: dict[str, list[Any]] = {}
    for name, cells in columns.items():
        if name == "step":
            continue
        try:
            values = [(at, float(cell)) for at, cell in enumerate(cells) if cell]
            finite = [(at, value) for at, value in values if math.isfinite(value)]
            every = math.ceil(len(finite) / points) or 1
            kept = list(dict.fromkeys([*finite[::every], *finite[-1:]]))
            where = [int(columns["step"][at]) for at, _ in kept]
        except ValueError:  # a cell that is no number
            continue
        if where not in steps:
            steps.append(where)
        metrics[name] = [steps.index(where), [float(f"{value:.5g}") for _, value in kept]]
    return {"steps": steps, "metrics": metrics}


def _names(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table["id"]]


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
