"""The checkpoint files of a run: ``best.ckpt``, ``last.ckpt`` and the ones before it.

``last-1.ckpt`` is what ``last.ckpt`` was before, ``last-2.ckpt`` what that was. Nothing here
imports torch.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from pathlib import Path

from fovea.checkpoints import durable

BEST, LAST = "best.ckpt", "last.ckpt"


def older(path: Path, generations: int) -> Path:
    """Return the name of what ``path`` was so many generations ago."""
    return path.with_name(f"{path.stem}-{generations}{path.suffix}") if generations else path


def existing(path: Path) -> list[Path]:
    """Return ``path`` and the generations before it, as far as they exist, newest first."""
    pattern = re.compile(rf"{re.escape(path.stem)}(?:-([1-9]\d*))?{re.escape(path.suffix)}")
    found = {}
    for file in path.parent.glob(f"{path.stem}*{path.suffix}"):
        if match := pattern.fullmatch(file.name):
            found[int(match[1] or 0)] = file
    return [found[age] for age in sorted(found)]


def put_in_place(path: Path, keep: int) -> None:
    """Make ``durable.partial(path)`` the newest of ``keep`` generations of ``path``.

    At every instant at least one generation is there as a whole: the newest one gets a second name
    (a hard link) before its first is given away. Where the file system has no hard links it is
    renamed, and for that instant the generation before is the newest.
    """
    if keep > 1 and path.exists():
        for age in range(keep - 1, 1, -1):
            if older(path, age - 1).exists():
                os.replace(older(path, age - 1), older(path, age))
        before = older(path, 1)
        try:
            durable.partial(before).unlink(missing_ok=True)
            os.link(path, durable.partial(before))
            os.replace(durable.partial(before), before)
        except OSError:
            os.replace(path, before)
    durable.put_in_place(path)
    for file in existing(path):
        if file not in {older(path, age) for age in range(keep)}:
            file.unlink(missing_ok=True)


def remove_damaged(path: Path) -> None:
    """Remove the newest generations of ``path`` that are damaged, lest they replace a whole one."""
    for file in existing(path):
        if damage(file) is None:
            return
        file.unlink()


def damage(path: Path) -> str | None:
    """Return what is wrong with the file at ``path``, None if nothing can be found.

    ``torch.save`` writes a zip archive, whose records carry their CRC-32: all are read and compared
    with it. Files in other formats have no checksum, and nothing is found wrong with them here.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            return "it is empty"
        if not zipfile.is_zipfile(path):
            return "its end is missing" if start == b"PK" else None
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        return str(error) or type(error).__name__
    return None if broken is None else f"the checksum of its record {broken} does not fit"
