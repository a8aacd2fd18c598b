"""The table of everything a run logged, as a CSV file in its folder."""

from __future__ import annotations

import csv
import io
import logging
import os
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fovea.machine.no_room import reason

Row = dict[str, str]

RETRY_S = 10.0
"""After a write that failed: until the next try."""

logger = logging.getLogger(__name__)


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
        self._temporary = self.path.with_suffix(".csv.tmp")
        self._last: Row = {}
        self._last_start = 0
        self._waiting: list[tuple[int, Row]] = []
        self._next_try = 0.0

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
            step = int(self._waiting[-1][0] if self._waiting else self._last.get("step", 0))
        self._waiting.append((step, {name: _text(value) for name, value in metrics.items()}))
        if time.monotonic() >= self._next_try:
            self._write_waiting()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what a full disk has kept out so far, or say how much is lost."""
        if self._waiting:
            self._write_waiting()
        if self._waiting:
            logger.warning("%s lacks its last %d entries", self.path, len(self._waiting))

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                self._record(*self._waiting[0])
                del self._waiting[0]
        except OSError as error:
            # Read anew at the next try: half a row may have been written.
            self._columns = []
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            if not self._next_try:
                logger.warning(
                    "%s can't be written: %s. Training goes on, and what comes is kept in memory "
                    "until there is room.",
                    *(self.path, reason(error, self.path)),
                )
            self._next_try = time.monotonic() + RETRY_S
        else:
            self._next_try = 0.0

    def _record(self, step: int, values: Row) -> None:
        if not self._columns:
            self._start(step + 1 if self.resume_step is None else self.resume_step)
            self.resume_step = None
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

    def sync(self) -> None:
        """Flush the table to the disk, so that it is there if a checkpoint made next is."""
        if self._waiting:
            self._write_waiting()
        if self._columns:
            with suppress(OSError), self.path.open("rb") as file:  # told by the next row's write
                os.fsync(file.fileno())

    def _start(self, end: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_rows(self.path) if int(row["step"]) < end]
        self._columns = list(dict.fromkeys(["epoch", "step", *chain.from_iterable(rows)]))
        self._rewrite(rows)

    def _rewrite(self, rows: list[Row]) -> None:
        """Replace the file in one step, so that a cut never leaves half a table."""
        lines = [self._line(dict(zip(self._columns, self._columns, strict=True)))]
        lines += [self._line(row) for row in rows]
        with self._temporary.open("wb") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._temporary, self.path)
        self._last = rows[-1] if rows else {}
        self._last_start = sum(map(len, lines[:-1])) if rows else len(lines[0])

    def _write_last(self, row: Row, replace: bool) -> None:
        with open(self.path, "r+b") as file:
            # Over the old line and only then cut: a kill in between leaves one or the other.
            self._last_start = file.seek(*((self._last_start,) if replace else (0, os.SEEK_END)))
            file.write(self._line(row))
            file.truncate()

    def _line(self, row: Row) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row.get(name, "") for name in self._columns)
        return text.getvalue().encode()


def last_values(path: Path) -> dict[str, float]:
    """Return what a ``metrics.csv`` says last of each metric."""
    last = dict(chain.from_iterable(row.items() for row in read_rows(path)))
    return {name: float(value) for name, value in last.items() if name not in {"epoch", "step"}}


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a ``metrics.csv`` without their empty cells; no file, no rows.

    A last line that was cut off in the writing (no end, no step, too few cells) is left out.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    whole, _, _ = text.rpartition("\n")  # behind the last line's end is only what was cut off
    lines = list(csv.reader(whole.splitlines()))
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
