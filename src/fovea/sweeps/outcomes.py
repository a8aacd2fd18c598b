"""What came of a trial: read from the summaries of its runs."""

from __future__ import annotations

import math
import os
import signal
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea import run_folder, run_lock
from fovea.errors import FoveaError, did_you_mean
from fovea.launchers.job import INTERRUPTED, START_AGAIN


@dataclass
class Outcome:
    """The end of a trial, of one run or of one for each seed.

    Attributes:
        state: "finished", "pruned", "failed", "killed" (by a signal: it may be run again), or
            "cut" (it was asked to stop, and is to be gone on with).
        values: a number for each objective, the mean over seeds; None unless finished.
        std: over seeds, of each objective; None with one seed.
        seconds: of all runs together.
        error: why it failed; else None.
    """

    state: str
    values: list[float] | None = None
    std: list[float] | None = None
    seconds: float = 0.0
    error: str | None = None


def read(folders: list[Path], objectives: list[str]) -> Outcome:
    """Return what came of the runs in ``folders``, the first that did not finish deciding.

    Args:
        folders: one for each seed.
        objectives: names in summary.json: a metric, or a number such as ``seconds``.
    """
    summaries = [run_folder.read_summary(folder) for folder in folders]
    seconds = sum(float(summary.get("seconds") or 0) for summary in summaries)
    for summary in summaries:
        state = summary.get("state")
        if state == "failed":
            killed = summary.get("signal") is not None
            state = "killed" if killed else "failed"
            return Outcome(state, seconds=seconds, error=summary.get("error"))
        if state == "pruned":
            return Outcome("pruned", seconds=seconds)
        if state != "finished":
            return Outcome("cut", seconds=seconds)
    try:
        rows = [[value(summary, name) for name in objectives] for summary in summaries]
    except FoveaError as error:
        return Outcome("failed", seconds=seconds, error=str(error))
    columns = list(zip(*rows, strict=True))
    std = [statistics.stdev(column) for column in columns] if len(rows) > 1 else None
    return Outcome("finished", [statistics.fmean(column) for column in columns], std, seconds)


def note_end(folder: Path, status: int | None) -> None:
    """Write into summary.json that a run ended badly, where the run itself did not say why.

    Args:
        folder: of the run.
        status: of its process; None where nobody knows.
    """
    if status in {None, 0, INTERRUPTED, START_AGAIN} or run_lock.holder(folder) is not None:
        return  # or another process is at it
    assert status is not None
    # A shell in between turns signal 9 into status 137.
    number = -status if status < 0 else status - 128
    name = signal.Signals(number).name if number in set(signal.Signals) else None
    fields = {"signal": name}
    if name is not None:
        hint = ": out of memory?" if name == "SIGKILL" else ""
        fields |= {"state": "failed", "error": f"killed by {name}{hint}"}
    elif run_folder.read_summary(folder).get("state") != "failed":
        fields |= {"state": "failed", "error": f"ended with status {status}; see its output"}
    run_folder.write_summary(folder, **fields)


def note_error(words: list[str], error: str) -> None:
    """Write why a job of a sweep can't begin into its summary; of other runs nothing is left.

    Args:
        words: the command line; that of a job has ``paths.run='<folder>'``.
        error: what is wrong.
    """
    given = [word.partition("=")[2] for word in words if word.startswith("paths.run='")]
    if not given or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    folder = Path(given[0][1:-1].replace("\\'", "'"))
    if folder.is_dir() and run_lock.take(folder) is None:  # else another process is at it
        run_folder.write_summary(folder, state="failed", error=error)


def value(summary: dict[str, Any], name: str) -> float:
    """Return the number called ``name`` in a run's summary; of the monitored metric the best one.

    Raises:
        FoveaError: there is none, or it is no number.
    """
    if name == summary.get("monitor"):
        found = summary.get("objective")
    else:
        found = summary.get("metrics", {}).get(name, summary.get(name))
    if isinstance(found, int | float) and math.isfinite(found):
        return float(found)
    numbers = [k for k, v in summary.items() if isinstance(v, int | float)]
    known = [*summary.get("metrics", {}), *numbers]
    raise FoveaError(f"no finite number {name} in summary.json.{did_you_mean(name, known)}")
