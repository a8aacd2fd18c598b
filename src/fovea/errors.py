"""The one exception type whose message is meant for the person at the keyboard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FoveaError(Exception):
    """A mistake the user can mend.

    The message says what was wrong, where, and what to type next. Commands print it without a
    traceback and exit with status 2; from Python it is an ordinary exception.
    """


def nearest(word: str, choices: Iterable[str], n: int = 1) -> list[str]:
    """Return up to ``n`` of ``choices`` that look most like ``word``, best first (maybe none)."""
    return difflib.get_close_matches(word, [str(choice) for choice in choices], n=n, cutoff=0.5)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the choice nearest to ``word``, or an empty string."""
    close = nearest(word, choices)
    return f" Did you mean '{close[0]}'?" if close else ""
