"""The table of everything a run logged, as a CSV file in its folder."""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

Row = dict[str, str]


class MetricsCSV(Logger):
    """Writes ``metrics.csv``: one row a logged step, one column a metric, ``epoch, step`` first.

    What is logged for one step in several calls (training, validation, end of the epoch) shares a
    row. Columns stand in the order they first came. Every call reaches the file at once; a new
    column rewrites it atomically. Only rank zero writes. Numbers keep all their digits.

    Args:
        folder: of the run; made if absent.
        resume_step: of a table that is there already, rows from this optimiser step on are dropped
            before the first write, since a run resumed there logs them again: ``global_step`` of
            the checkpoint. 0 starts a new table. None drops the rows after the first logged step.
    """

    def __init__(self, folder: Path | str, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.resume_step = resume_step
        self._columns: list[str] = []
        self._last: Row = {}
        self._last_start = 0

    @property
    def name(self) -> str:
        """Always "csv"."""
        return "csv"

    @property
    def version(self) -> str:
        """Empty: one table a run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return self.save_dir

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: the run folder holds the whole config already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one row, or complete the last one if it has the same ``step``.

        Args:
            metrics: names to numbers (or tensors of one element); may hold ``epoch``.
            step: 0-based optimiser step; None stands for that of the last row.
        """
        if step is None:
            step = int(self._last.get("step", 0))
        if not self._columns:
            self._start(step + 1 if self.resume_step is None else self.resume_step)
        values = {name: _text(value) for name, value in metrics.items()}
        same_step = self._last.get("step") == str(step)
        row = (self._last if same_step else {}) | {"step": str(step)} | values
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:
            rows = [old for old in read_rows(self.path) if old["step"] != str(step)]
            self._columns += new_columns
            self._rewrite([*rows, row])
        else:
            self._write_last(row, replace=same_step)
        self._last = row

    def _start(self, end: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_rows(self.path) if int(row["step"]) < end]
        self._columns = list(dict.fromkeys(["epoch", "step", *chain.from_iterable(rows)]))
        self._rewrite(rows)

    def _rewrite(self, rows: list[Row]) -> None:
        """Replace the file in one step, so that a cut never leaves half a table."""
        temporary = self.path.with_suffix(".csv.tmp")
        lines = [self._line(dict(zip(self._columns, self._columns, strict=True)))]
        lines += [self._line(row) for row in rows]
        temporary.write_bytes(b"".join(lines))
        os.replace(temporary, self.path)
        self._last = rows[-1] if rows else {}
        self._last_start = sum(map(len, lines[:-1])) if rows else len(lines[0])

    def _write_last(self, row: Row, replace: bool) -> None:
        with open(self.path, "r+b") as file:
            if replace:
                file.truncate(self._last_start)
            self._last_start = file.seek(0, os.SEEK_END)
            file.write(self._line(row))

    def _line(self, row: Row) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row.get(name, "") for name in self._columns)
        return text.getvalue().encode()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a ``metrics.csv`` without their empty cells; no file, no rows.

    A last line that was cut off in the writing (no step, too few cells) is left out.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except FileNotFoundError:
        return []
    if not lines or "step" not in lines[0]:
        return []
    return list(_complete_rows(lines[0], lines[1:]))


def _complete_rows(columns: list[str], lines: Iterable[list[str]]) -> Iterable[Row]:
    for line in lines:
        if len(line) == len(columns):
            row = {name: cell for name, cell in zip(columns, line, strict=True) if cell}
            if row.get("step", "").isdecimal():
                yield row


def _text(value: Any) -> str:
    return repr(value.item()) if isinstance(value, Tensor) else str(value)
