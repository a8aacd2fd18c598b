"""Storage that is away for a while, or for good: told from a file that is broken.

A broken file may be left out of training; a network file system that does not answer may not, or a
run would quietly train on what is left. Reads that work come nowhere near this module.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fovea.errors import FoveaError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Between attempts to read: half a minute in all, in which a server may have started anew."""

_NAMES = (
    # the device or its server fails, or has forgotten an open file
    ("EIO", "ESTALE", "EREMOTEIO", "ENODEV", "ENXIO", "ETIMEDOUT", "EAGAIN"),
    # the network
    ("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "ENETRESET"),
    ("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    # this machine is at its limits
    ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"),
)
AWAY = frozenset(getattr(errno, n) for names in _NAMES for n in names if hasattr(errno, n))
"""Errors that say nothing about the file itself."""

# Whether an outage has been told of, by any process forked from this one: an anonymous mapping, as
# multiprocessing's own shared values need a file system for shared memory.
_told = mmap.mmap(-1, 1)


class StorageError(FoveaError):
    """What holds the images does not answer; no fault of an image, so never skipped."""


def patiently(read: Callable[[], T], path: str | os.PathLike[str]) -> T:
    """Return what ``read()`` returns, tried again as long as the storage may be away.

    Raises:
        StorageError: it stayed away.
        OSError: any other.
    """
    try:
        return read()
    except OSError as error:
        if error.errno not in AWAY:
            raise
        return read_again(read, path, error)


def is_away(error: OSError, path: str, root: Path | None) -> bool:
    """Return whether ``error`` tells of the storage, not of the file at ``path``.

    A file that is missing tells of the storage when a folder on its way, from ``root`` on, is
    missing, empty or closed as well: an unmounted disk leaves an empty folder.
    """
    if error.errno in AWAY:
        return True
    if root is None or error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM}:
        return False
    folder = Path(path).parent
    folders = [folder, *(p for p in folder.parents if p == root or root in p.parents)]
    return not all(_has_entries(each) for each in folders)


def read_again(read: Callable[[], T], path: str | os.PathLike[str], error: OSError) -> T:
    """Return what ``read()`` returns in one of the next attempts; a first one raised ``error``.

    Raises:
        StorageError: none worked.
    """
    if not _told[0]:
        _told[0] = 1
        logger.warning(
            "%s can't be read: %s. Trying again for up to %.0f s …",
            *(path, _reason(error), sum(PAUSES_S)),
        )
    for pause in PAUSES_S:
        time.sleep(pause)
        try:
            result = read()
        except OSError as again:
            error = again
        else:
            if _told[0]:
                _told[0] = 0
                logger.warning("%s can be read again", path)
            return result
    raise StorageError(
        f"{os.fspath(path)} can't be read: {_reason(error)}, {len(PAUSES_S) + 1} times in "
        f"{sum(PAUSES_S):.0f} s. That is no broken image, which could be left out: the disk, its "
        "mount or the network is gone. Bring it back, then go on with the run: the same command "
        "with resume=auto"
    ) from None


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
