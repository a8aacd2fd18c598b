"""Archives from elsewhere, read member by member: plain files with the names of images, no more."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

LARGEST_LIST = 64_000_000
"""Bytes of a file of the devkit: the real ones have less than 1 MB, and a forged archive of a few
kB may unpack to anything."""

_IMAGE = re.compile(r"[\w-]+\.(JPEG|jpeg|JPG|jpg)")


class PreparationError(Exception):
    """What the user can mend: printed as it is."""


def is_picture(name: str) -> bool:
    """Return whether ``name`` is that of a JPEG, without a folder in it."""
    return _IMAGE.fullmatch(name) is not None


@contextmanager
def opened(
    name: Path | str, mode: Literal["r:", "r:gz"] = "r:", file: IO[bytes] | None = None
) -> Iterator[tarfile.TarFile]:
    """Give an archive open for reading: of one kind alone, so that no packed one takes its place.

    What a plain tar holds is no larger than itself, so a check of room before is to be relied on.

    Args:
        name: its path, or a name for messages where ``file`` is given.
        mode: plain, or packed by gzip.
        file: the archive itself.

    Raises:
        PreparationError: it is cut off, damaged or of another kind; names it.
    """
    try:
        with tarfile.open(None if file else name, mode, fileobj=file) as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PreparationError(f"{name} is cut off or damaged ({error}): fetch it again") from error


def is_plain(member: tarfile.TarInfo) -> bool:
    """Return whether a member is a file: no link, device or folder.

    Nor a file with holes, which takes no room in the archive and any amount outside.
    """
    return member.isreg() and not member.issparse()


def members(tar: tarfile.TarFile, where: str) -> Iterator[tarfile.TarInfo]:
    """Yield the images of a flat archive; anything else but the folder itself is refused."""
    for member in tar:
        member.name = member.name.removeprefix("./")
        if member.isdir() and member.name in ("", "."):
            continue
        if not (is_plain(member) and is_picture(member.name)):
            raise PreparationError(f"refused: {where} holds {member.name!r}, no plain image")
        yield member


def member_bytes(tar: tarfile.TarFile, name: str) -> bytes:
    """Return the content of member ``name``, a file of at most `LARGEST_LIST` bytes."""
    member = tar.getmember(name)
    if not is_plain(member) or member.size > LARGEST_LIST:
        raise PreparationError(
            f"refused: {tar.name} holds {name}, which is no file of at most {LARGEST_LIST:,} bytes "
            f"({member.size:,})"
        )
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()
