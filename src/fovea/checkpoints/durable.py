"""Files that are there as a whole or not at all, whatever ends the process or the machine.

Written beside their place, flushed to the disk, then renamed onto it.
"""

from __future__ import annotations

import os
from pathlib import Path


def partial(path: Path) -> Path:
    """Return where what will be ``path`` is written: hidden, in the same folder."""
    return path.with_name(f".{path.name}.part")


def put_in_place(path: Path) -> None:
    """Give ``partial(path)``, which is complete and flushed, the name ``path``, for good."""
    os.replace(partial(path), path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Write the names in ``folder`` to the disk, where the file system has a way to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse it for folders
        pass
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` as a whole by ``text``, so that a reader never meets half a file."""
    with partial(path).open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    put_in_place(path)


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files in ``folder`` of a process that was killed while it wrote them."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)
