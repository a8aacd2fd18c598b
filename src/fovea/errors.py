"""The one exception type whose message is meant for the person at the keyboard."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# C0 and C1 control characters, and those that turn the direction of writing.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


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


def printable(text: str) -> str:
    r"""Return ``text`` with what a terminal would obey, or can't show, as ``\x1b`` or ``\udcff``.

    Names of files and classes come from elsewhere: they may hold escape sequences, and bytes that
    are no text. Line feeds and tabs stay.
    """
    text = text.encode(errors="backslashreplace").decode()
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
