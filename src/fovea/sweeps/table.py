"""The table of a sweep: sweep.csv for programs, the same as text for people."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

_WIDEST = 44


@dataclass
class Entry:
    """One row: a trial of a study, or a job of a basic sweep.

    Attributes:
        name: of its run folder, or of the first one.
        state: finished, pruned, failed, running, interrupted; "" where nothing is known.
        params: {key: value as typed} of what differs between trials.
        values: of the objectives; None unless finished.
        std: of the values over seeds; None with one seed.
        seconds: of all its runs.
        folder: where its runs are.
        error: why it failed.
        count: how many runs it stands for.
    """

    name: str
    state: str
    params: dict[str, str]
    values: list[float] | None = None
    std: list[float] | None = None
    seconds: float | None = None
    folder: str = ""
    error: str | None = None
    count: int = field(default=1)


def write(path: Path, entries: Sequence[Entry], objectives: dict[str, str]) -> None:
    """Write ``entries`` as CSV to ``path``, which is never seen half written."""
    keys = _keys(entries)
    names = [*objectives, *(f"{name} std" for name in objectives)]
    file = io.StringIO()
    writer = csv.writer(file)
    total = [] if "seconds" in objectives else ["seconds"]
    writer.writerow(["trial", "state", *keys, *names, "runs", *total, "folder", "error"])
    blank = [None] * len(objectives)
    for entry in entries:
        numbers = [*(entry.values or blank), *(entry.std or blank)]
        params = [entry.params.get(key) for key in keys]
        ends = [entry.count, *(entry.seconds for _ in total), entry.folder, entry.error]
        writer.writerow([entry.name, entry.state, *params, *numbers, *ends])
    replace_file(path, file.getvalue())


def replace_file(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` in one move, also when several workers do so at a time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)


def text(entries: Sequence[Entry], objectives: dict[str, str]) -> str:
    """Return ``entries`` as a table, best first where there is one objective, failed ones last."""
    keys = _keys(entries)
    last = [] if "seconds" in objectives else ["seconds"]
    head = ["", "state", *keys, *objectives, *last]
    rows = []
    for entry in rank(entries, objectives):
        params = [_short(entry.params.get(key, "")) for key in keys]
        seconds = ["" if entry.seconds is None else f"{entry.seconds:.0f}" for _ in last]
        rows.append([entry.name, entry.state, *params, *_numbers(entry, objectives), *seconds])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in [head, *rows]]  # fmt: skip
    reasons = [f"  {e.name}: {_first_line(e.error)}" for e in entries if e.error]
    return "\n".join(lines + (["", "Failed:", *reasons] if reasons else []))


def rank(entries: Iterable[Entry], objectives: dict[str, str]) -> list[Entry]:
    """Return ``entries``, finished ones first, the best of them first if one objective decides."""
    modes = list(objectives.values())

    def key(entry: Entry) -> tuple[bool, bool, float]:
        value = 0.0
        if entry.values and len(modes) == 1:
            value = entry.values[0] if modes[0] == "min" else -entry.values[0]
        return entry.values is None, entry.state == "failed", value

    return sorted(entries, key=key)


def over_seeds(entries: Sequence[Entry]) -> list[Entry]:
    """Return one entry for all that differ in ``seed`` only: mean and standard deviation."""
    groups: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for entry in entries:
        rest = tuple((key, value) for key, value in entry.params.items() if key != "seed")
        groups.setdefault(rest, []).append(entry)
    return [_mean(dict(rest), group) for rest, group in groups.items()]


def _mean(params: dict[str, str], group: list[Entry]) -> Entry:
    rows = [entry.values for entry in group if entry.values]
    columns = list(zip(*rows, strict=True))
    seconds = [entry.seconds for entry in group if entry.seconds is not None]
    missing = "" if len(rows) == len(group) else f", {len(rows)} of {len(group)} finished"
    return replace(
        group[0],
        name=", ".join(entry.name for entry in group),
        state=f"{len(group)} seeds{missing}",
        params=params,
        values=[statistics.fmean(column) for column in columns] or None,
        std=[statistics.stdev(column) for column in columns] if len(rows) > 1 else None,
        seconds=sum(seconds) if seconds else None,
        error=None,
        count=len(group),
    )


def _keys(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(key for entry in entries for key in entry.params))


def _numbers(entry: Entry, objectives: dict[str, str]) -> list[str]:
    if entry.values is None:
        return [""] * len(objectives)
    if entry.std is None:
        return [f"{value:.5g}" for value in entry.values]
    pairs = zip(entry.values, entry.std, strict=True)
    return [f"{value:.5g} ± {std:.2g}" for value, std in pairs]


def _short(value: str) -> str:
    """Return a typed value with four digits, or shortened."""
    try:
        number = float(value)
    except ValueError:
        return value if len(value) <= _WIDEST else value[: _WIDEST - 1] + "…"
    return value if number.is_integer() or not math.isfinite(number) else f"{number:.4g}"


def _first_line(error: str | None) -> str:
    lines = (error or "").strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= 160 else lines[0][:159] + "…"
