"""Pictures and tables for the loggers that show them: W&B and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import Logger

from fovea.tracking import TensorBoardRun, WandbRun

SHEETS = ("train_images", "eval_images")
"""Pictures that were logged when they were drawn, at the start."""


def show_figures(loggers: Sequence[Logger], figures: Sequence[Path]) -> None:
    """Log picture files as ``figures/<name without suffix>``."""
    for logger in loggers:
        for figure in figures:
            if isinstance(logger, WandbRun):
                logger.log_image(f"figures/{figure.stem}", [str(figure)])
            elif isinstance(logger, TensorBoardRun):
                logger.log_figure(f"figures/{figure.stem}", figure)


def show_tables(loggers: Sequence[Logger], tables: Mapping[str, pd.DataFrame]) -> None:
    """Log tables as ``tables/<name>``; empty cells stay empty."""
    for logger in loggers:
        for name, table in tables.items():
            if isinstance(logger, WandbRun):
                plain = table.astype(object).where(table.notna(), None)
                logger.log_table(f"tables/{name}", dataframe=plain)
            elif isinstance(logger, TensorBoardRun):
                logger.log_table(f"tables/{name}", table)


def show_results(loggers: Sequence[Logger], report: Path) -> None:
    """Log what a run ends with: its pictures, its scores with their intervals, and each class.

    Args:
        loggers: of the run.
        report: the folder that `fovea.evaluation.write_report` filled; what is not there, because
            the disk was full for instance, is left out.
    """
    show_figures(loggers, [p for p in sorted(report.glob("*.png")) if p.stem not in SHEETS])
    tables = {}
    with suppress(OSError, ValueError):
        tables["scores"] = _scores(json.loads((report / "metrics.json").read_text("utf-8")))
    with suppress(OSError, ValueError):
        tables["per_class"] = pd.read_csv(
            report / "per_class.csv",
            dtype={"name": str, "most_confused_with": str},  # a class may be called 1, or NA
            keep_default_na=False,
            na_values=[""],
        )
    show_tables(loggers, tables)


def _scores(numbers: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row a score of metrics.json: ``score, value, low, high``, the 95 % interval."""
    intervals = numbers.get("intervals", {})
    rows = [
        (name, value, *(intervals.get(name) or (None, None)))
        for name, value in numbers.items()
        if isinstance(value, int | float) or value is None
    ]
    return pd.DataFrame(rows, columns=["score", "value", "low", "high"])
