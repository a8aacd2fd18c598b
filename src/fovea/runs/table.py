"""A tree of run folders as one table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fovea.errors import FoveaError, printable
from fovea.runs.cache import Cache, settled
from fovea.runs.record import MARKS, Record, Stamps, read_record, stamps_of
from fovea.runs.settings import telling
from fovea.runs.state import judge

FIRST = (
    "id", "path", "kind", "state", "error", "evidence", "sweep", "time", "touched", "duration",
    "data", "host", "hardware", "commit", "dirty", "overrides", "monitor", "mode", "objective",
    "best_epoch", "best_step", "epochs", "steps", "throughput",
)  # fmt: skip
"""Columns that each table has, in this order."""

_TIMES = ("time", "touched")
_SWEEP_MARKS = ("sweep.csv", "study.journal", "multirun.yaml")

# Reading waits for the disk or the network, so more threads than processors pay.
_THREADS = 8


@dataclass(frozen=True)
class Found:
    """A folder that is, or may be, a run's.

    Attributes:
        path: of the folder.
        sweep: the sweep's folder it lies in; None if it lies in none.
        reason: why it can't be looked into; None if it can.
    """

    path: str
    sweep: str | None = None
    reason: str | None = None


def load(folder: Path | str = "outputs") -> pd.DataFrame:
    """Return one row for each run folder below ``folder`` (or for itself), in natural order.

    An evaluation of several models has a row for each of them.

    Columns, where a run lacks something None or NaN:

    - ``id`` (path below ``folder``), ``path``, ``kind`` ("train" or "eval"), ``sweep`` (the id of
      the sweep it is a job of);
    - ``state``: finished, running, interrupted, pruned, failed, killed or unknown; ``evidence`` for
      it; ``error``: what can't be read, or why the run failed;
    - ``time`` of its first start and ``touched``, when its newest file was written (UTC);
      ``duration`` in seconds, of all its processes together (``seconds``: of the last one);
    - ``data``, the class of the data set; ``host``, ``hardware``, git ``commit`` and ``dirty``,
      ``overrides`` as typed;
    - ``monitor``, its ``mode`` (min, max) and best value (``objective``), ``best_epoch`` and
      ``best_step`` (0-based), ``epochs`` begun, ``steps``, ``throughput`` (median images/s);
    - the other plain fields of summary.json;
    - metrics by name: ``val/top1`` and the like as they were in the best epoch by the monitor,
      ``last/val/top1`` in the last; ``test/…`` of the best checkpoint; all others the last value;
    - settings by their key: seed, model, batch size and epochs, and every other one in which runs
      of one kind differ. Their names are in ``table.attrs["settings"]``.

    Links are not followed. A damaged run is a row with what could be read, and the reason. What was
    read of many runs is kept in ``$FOVEA_CACHE`` (else ``~/.cache/fovea``; empty: nowhere) until
    a file of theirs changes.

    Raises:
        FoveaError: ``folder`` does not exist.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise FoveaError(f"There is no folder of runs at {root.absolute()}. Runs go to: outputs")
    found = sorted(_run_folders(str(root.absolute())), key=lambda run: natural(run.path))
    records = _records(str(root.absolute()), found)
    rows, settings = [], []
    for run, record in zip(found, records, strict=True):
        row = _row(record["row"], run, str(root.absolute()))
        models = [_of_model(row, model) for model in record.get("models", ())] or [row]
        rows.extend(models)
        settings.extend([record["settings"]] * len(models))
    return to_table(rows, settings)


def to_table(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of facts and the settings that tell runs apart as one table.

    Args:
        rows: column -> value of each run; times in seconds since 1970.
        settings: all settings of each run, by their key.
    """
    names = dict.fromkeys([*FIRST, *(name for row in rows for name in row)])
    metrics = [name for name in names if "/" in name and name not in FIRST]
    facts = [name for name in names if name not in metrics]
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in [*facts, *metrics]}
    for name in _TIMES:
        numbers = pd.to_numeric(pd.Series(columns[name], dtype=object), errors="coerce")
        times = pd.to_datetime(numbers, unit="s", utc=True, errors="coerce")
        columns[name] = times.dt.as_unit("us")
    # As it is, also where a name is no valid text: other kinds of column may not take it.
    columns["path"] = pd.Series(columns["path"], dtype=object)
    told = [
        key for key in telling(settings, [str(row.get("kind")) for row in rows]) if key not in names
    ]
    columns |= {key: [flat.get(key) for flat in settings] for key in told}
    table = pd.DataFrame(columns, index=range(len(rows)))
    table.attrs["settings"] = told
    return table


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts job 2 before job 10."""
    return [
        (int(part or -1), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", text)
    ]


def _run_folders(root: str) -> Iterator[Found]:
    """Yield the run folders below ``root``, and folders that can't be looked into."""
    closed: list[Found] = []

    def note(error: OSError) -> None:
        closed.append(Found(str(error.filename), reason=f"can't be listed: {error.strerror}"))

    sweeps: dict[str, str] = {}
    for folder, children, files in os.walk(root, onerror=note):
        if any(mark in files for mark in MARKS):
            children.clear()  # what lies inside belongs to the run
            yield Found(folder, sweeps.get(os.path.dirname(folder)))
            continue
        if any(mark in files for mark in _SWEEP_MARKS):
            sweeps[folder] = folder
        elif os.path.dirname(folder) in sweeps:  # a trial's folder, of a run for each seed
            sweeps[folder] = sweeps[os.path.dirname(folder)]
    yield from closed


def _records(root: str, found: Sequence[Found]) -> list[Record]:
    """Return what is known of each run, from the cache where nothing has changed."""
    cache = Cache(root)
    with ThreadPoolExecutor(_THREADS) as threads:
        stamps = list(threads.map(lambda run: stamps_of(run.path), found))
        kept = [cache.find(run.path, stamp) for run, stamp in zip(found, stamps, strict=True)]
        read = list(threads.map(_read, found, stamps, kept))
    for run, stamp, old, record in zip(found, stamps, kept, read, strict=True):
        if old is None and settled(stamp) and run.reason is None:
            cache.add(run.path, stamp, record)
    cache.write()
    return read


def _read(run: Found, stamps: Stamps, kept: Record | None) -> Record:
    if kept is not None:
        return kept
    if run.reason is not None:
        return {"row": {"error": run.reason}, "settings": {}}
    try:
        return read_record(Path(run.path), stamps)
    except Exception as error:  # of values nobody thought of: the other runs are shown
        return {"row": {"error": f"{type(error).__name__}: {error}"}, "settings": {}}


def _row(facts: dict[str, Any], run: Found, root: str) -> dict[str, Any]:
    """Return ``facts`` with what depends on the moment and on the place of the run."""
    touched = facts.get("touched") or 0.0
    state, evidence = judge(facts.get("state"), Path(run.path), facts.get("host"), touched)
    if run.reason is not None:
        evidence = run.reason
    place = {
        "id": _id(run.path, root),
        "path": run.path,
        "sweep": None if run.sweep is None else _id(run.sweep, root),
    }
    return {**facts, **place, "state": state, "evidence": evidence}


def _of_model(row: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one model that the evaluation of ``row`` judged, in a folder below."""
    name = model["name"]
    below = name if row["id"] == "." else f"{row['id']}/{name}"
    own = {key: value for key, value in model.items() if key != "name"}
    return {**row, **own, "id": printable(below), "path": os.path.join(row["path"], name)}


def _id(path: str, root: str) -> str:
    return printable(Path(os.path.relpath(path, root)).as_posix())


def settings_of(table: pd.DataFrame, names: Iterable[str] | None = None) -> list[str]:
    """Return the columns of ``table`` that are settings; of ``names`` if those are given.

    Raises:
        FoveaError: the table no longer knows, since it was joined with another, for instance.
    """
    known = table.attrs.get("settings") if names is None else list(names)
    if known is None:
        raise FoveaError(
            "This table does not know which of its columns are settings, as one of "
            "fovea.runs.load does. Say which: by=['optimizer.lr', …]"
        )
    return [name for name in known if name in table]
