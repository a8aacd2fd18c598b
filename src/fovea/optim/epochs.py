"""Points in a run, written as epochs or as a share of the run."""

from __future__ import annotations

import math
import re

from fovea.errors import FoveaError

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def check_epochs(value: object, where: str) -> float | str:
    """Return ``value`` if it is a number of epochs >= 0 or a percentage such as ``"20%"``.

    Args:
        value: as it came from the user.
        where: the key to name in the error.

    Raises:
        FoveaError: it is neither.
    """
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value.strip())
        if match and float(match[1]) <= 100:
            return value.strip()
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return value
    raise FoveaError(
        f"{where} is {value!r}: it takes a number of epochs >= 0, or a share of the run such as "
        '"20%" (0% to 100%).'
    )


def resolve_epochs(value: float | str, max_epochs: float) -> float:
    """Return ``value`` (see `check_epochs`) in epochs of a run of ``max_epochs``."""
    if isinstance(value, str):
        return float(value.rstrip("% ")) / 100 * max_epochs
    return float(value)


def round_half_up(value: float) -> int:
    """Return the nearest integer, 2.5 up to 3 (Python's ``round`` would give 2)."""
    return math.floor(value + 0.5)
