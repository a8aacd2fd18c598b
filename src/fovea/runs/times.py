"""When a run began and how long it took, from its summary and the times in train.log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Span = tuple[float, float]
"""Begin and end in seconds since 1970."""

_STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} [A-Z]+ ", re.MULTILINE)
# The line each process begins with: its text opens with a line feed and the name of the run.
_BEGIN = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO \nfovea: ", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """What a run's records say of its time.

    Attributes:
        started: candidates for the start of the last process, in seconds since 1970.
        seconds: that the last process took; None if it could not write it.
        ended: whether the run says that it has ended.
        resumed: whether the last process went on with a run, or looked for one to go on with.
    """

    started: Sequence[float | None]
    seconds: float | None
    ended: bool
    resumed: bool

    @property
    def needs_log(self) -> bool:
        """Whether the summary's seconds are not all: the last process's alone, or none."""
        return self.resumed or not self.ended or self.seconds is None

    def begin(self, spans: Sequence[Span]) -> float | None:
        """Return when the first process started."""
        known = [start for start in self.started if start is not None]
        return min([*known, *(begin for begin, _ in spans)], default=None)

    def total(self, spans: Sequence[Span]) -> float | None:
        """Return the seconds of all processes together, without the pauses between them."""
        if not spans:
            return self.seconds if self.ended else None
        lengths = [end - begin for begin, end in spans]
        if self.ended and self.seconds is not None:  # exact for the last one
            lengths[-1] = self.seconds
        return sum(lengths)


def processes(log: str) -> list[Span]:
    """Return begin and end of each process that wrote into a train.log.

    A run that was gone on with has several. The end is the last line with a time on it: what a
    killed process did after that is not counted. Times are read as of this machine's time zone.
    """
    begins = [found.start() for found in _BEGIN.finditer(log)]
    spans = []
    for begin, end in zip(begins, [*begins[1:], len(log)], strict=True):
        stamps = _STAMP.findall(log[begin:end])
        try:
            first, last = (datetime.fromisoformat(stamps[at]).timestamp() for at in (0, -1))
        except (ValueError, OverflowError):  # no such date
            continue
        spans.append((first, max(first, last)))
    return spans


def seconds_of(iso: Any) -> float | None:
    """Return a time such as ``"2026-11-24T15:24:10+00:00"`` in seconds since 1970."""
    try:
        return datetime.fromisoformat(str(iso)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
