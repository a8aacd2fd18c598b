"""The curves of runs, from their metrics.csv."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from fovea.errors import FoveaError

logger = logging.getLogger(__name__)

Run: TypeAlias = Path | str | Mapping[str, Any] | pd.Series
"""A run's folder, or its row in a table of `fovea.runs.load`."""


def history(run: Run | Iterable[Run] | pd.DataFrame) -> pd.DataFrame:
    """Return the curves of a run, or of several below each other.

    Of one run: ``epoch`` and ``step`` (0-based), and a column for each metric, a row for each
    logged step; NaN where a metric was not logged then. Of several the same with a first column
    ``run``: the ``id`` of rows, else the folder as given. A run of several whose table can't be
    read is left out, and a warning says so.

    Args:
        run: its folder or its row of `load`; or several of these, or a table of `load`.

    Raises:
        FoveaError: there is no such table, or it is damaged; of several, all of them.
    """
    if isinstance(run, str | Path | Mapping | pd.Series):
        return _read(folder_of(run))
    runs = [row for _, row in run.iterrows()] if isinstance(run, pd.DataFrame) else list(run)
    tables, errors = [], []
    for one in runs:
        name = str(one if isinstance(one, str | Path) else one["id"])
        try:
            table = _read(folder_of(one))
        except FoveaError as error:
            errors.append(str(error))
            continue
        table.insert(0, "run", name)
        tables.append(table)
    if errors and not tables:
        raise FoveaError(f"None of these runs has curves. The first: {errors[0]}")
    if errors:
        logger.warning("%d of %d runs have no curves: %s", len(errors), len(runs), errors[0])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run": []})


def folder_of(run: Run) -> Path:
    """Return the folder of ``run``."""
    return Path(run if isinstance(run, str | Path) else run["path"])


def _read(folder: Path) -> pd.DataFrame:
    file = folder / "metrics.csv"
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is no file")
        text = file.read_text(encoding="utf-8")
        whole, end, rest = text.rpartition("\n")  # what lies behind it was cut off in the writing
        table = pd.read_csv(io.StringIO(whole if end else rest))
    except (OSError, ValueError) as error:
        raise FoveaError(f"{folder} has no readable metrics.csv: {error}") from error
    if "step" not in table:
        raise FoveaError(f"{file} has no column 'step', so it is no table of a run.")
    return table
