"""A real disk that is full."""

import contextlib
from pathlib import Path


def fill(disk: Path) -> Path:
    """Return the file that takes all the room of ``disk``, the last byte included."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast
