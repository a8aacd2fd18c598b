"""Whether a run is finished, running or dead, and by what evidence."""

from __future__ import annotations

import platform
import time
from pathlib import Path

from fovea import run_lock

STATES = ("finished", "running", "interrupted", "pruned", "failed", "killed", "unknown")

SIGN_OF_LIFE_S = 900.0
"""A run on another machine that wrote this lately is taken to be alive; a row of metrics.csv or a
line of the log comes at least once an epoch, mostly far more often."""


def judge(said: str | None, folder: Path, host: str | None, touched: float) -> tuple[str, str]:
    """Return (state, evidence) of the run in ``folder``.

    What summary.json says of a run that has ended is believed. A run said to be running holds the
    lock of its folder as long as it lives: on its own machine, a free lock means that it was killed
    without a chance to say so. The locks of other machines can't be seen everywhere; there the age
    of the newest file decides between "running" and "unknown".

    Args:
        said: ``state`` of summary.json; None if that is absent or can't be read.
        folder: the run's.
        host: the machine it was started on, by its record; None if that is not known.
        touched: when its newest file was written, in seconds since 1970.
    """
    if said not in ("running", None):
        return str(said), "summary.json"
    taken = run_lock.is_taken(folder)
    if taken:
        return "running", "its folder is locked by a living process"
    if said is None:
        return "unknown", "no summary.json that can be read, and no process in its folder"
    silence = time.time() - touched
    written = f"last written {age(silence)} ago"
    here = host == platform.node()
    if here and taken is False:
        return "killed", f"summary.json says running, but no process holds its lock; {written}"
    where = "on this machine, which has no locks" if here else f"on {host or 'another machine'}"
    state = "running" if silence < SIGN_OF_LIFE_S else "unknown"
    return state, f"summary.json says running, {where}; {written}"


def age(seconds: float) -> str:
    """Return ``"12 s"``, ``"5 min"``, ``"3 h"`` or ``"2 days"``."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
