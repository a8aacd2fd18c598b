"""A table of runs as text that fits a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from fovea.runs.ranking import one_line, short_names

NARROWEST = 12
"""Letters an id keeps, of its end, and a third of the width if that is more."""

_COLOURS = {
    "finished": "32", "running": "36", "interrupted": "33", "pruned": "90", "failed": "31",
    "killed": "31", "unknown": "33",
}  # fmt: skip


def text_table(
    table: pd.DataFrame, columns: Sequence[str], width: int | None, colour: bool = False
) -> tuple[str, list[str]]:
    """Return lines that fit ``width``, and the columns for which there was no room.

    The columns that come first are kept; the first of all is shortened where that is needed.

    Args:
        table: of `fovea.runs.load`, sorted.
        columns: to show, the most telling first.
        width: in letters; None: as wide as it gets.
        colour: whether states are coloured, for a terminal.
    """
    heads = short_names(columns)
    cells = {name: [written(name, value) for value in table[name]] for name in columns}
    widths = {name: max(map(len, [heads[name], *cells[name]])) for name in columns}
    kept = list(columns)
    left_out: list[str] = []
    if width is not None:
        kept, left_out = _fitting(columns, widths, width)
        room = width - sum(widths[name] + 2 for name in kept[1:])
        widths[kept[0]] = max(1, min(widths[kept[0]], room))
    numeric = {name for name in kept if pd.api.types.is_numeric_dtype(table[name])}

    def line(values: Sequence[str]) -> str:
        padded = []
        for name, value in zip(kept, values, strict=True):
            value = _shortened(value, widths[name])
            flush = value.rjust if name in numeric else value.ljust
            text = flush(widths[name])
            if colour and name == "state" and value in _COLOURS:
                text = f"\x1b[{_COLOURS[value]}m{text}\x1b[0m"
            padded.append(text)
        return "  ".join(padded).rstrip()

    rows = [[heads[name] for name in kept], *zip(*(cells[name] for name in kept), strict=True)]
    return "\n".join(map(line, rows)), left_out


def _fitting(
    columns: Sequence[str], widths: dict[str, int], width: int
) -> tuple[list[str], list[str]]:
    """Return the columns for which there is room beside a shortened first one, and the others."""
    kept = [columns[0]]
    used = min(widths[columns[0]], max(NARROWEST, width // 3))
    for name in columns[1:]:
        if used + widths[name] + 2 <= width:
            used += widths[name] + 2
            kept.append(name)
    return kept, [name for name in columns if name not in kept]


def _shortened(text: str, width: int) -> str:
    """Return ``text`` with its end, by which runs differ, in ``width`` letters."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def written(name: str, value: Any) -> str:
    """Return ``value`` of the column ``name`` as it is read: "" for what is missing.

    Times are those of this machine's time zone.
    """
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, pd.Timestamp):
        return datetime.fromtimestamp(value.timestamp()).strftime("%Y-%m-%d %H:%M")
    if name == "duration":
        return clock(float(value))
    if name == "commit":
        return str(value)[:7]
    if isinstance(value, float):
        if name == "throughput":
            return f"{value:,.0f}"
        if "/" in name or name == "objective":
            return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return one_line(str(value))


def clock(seconds: float) -> str:
    """Return ``"0:05"`` or ``"1:02:03"``."""
    if not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
