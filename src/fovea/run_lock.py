"""At most one living process writes into a run folder.

The lock is the operating system's: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is refused
    fcntl = None  # type: ignore[assignment]

from fovea.errors import FoveaError

NAME = ".lock"
_held: dict[Path, IO[str]] = {}


def take(folder: Path) -> str | None:
    """Lock ``folder`` for the rest of this process; return who has it if somebody else does.

    Locks of POSIX, not of BSD: a forked worker that outlives a killed run does not keep them.
    """
    path = folder.resolve() / NAME
    if path in _held or fcntl is None:
        return None
    file = path.open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        return file.read().strip() or "another process"
    except OSError:  # a network file system without locks
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[path] = file  # closing it would give the lock away
    return None


def holder(folder: Path) -> str | None:
    """Return who else has locked ``folder``, None if nobody has; the lock is not kept."""
    path = folder.resolve() / NAME
    ours = path in _held
    who = take(folder) if folder.is_dir() else None
    if not ours and path in _held:
        _held.pop(path).close()
    return who


def is_taken(folder: Path) -> bool | None:
    """Return whether a living process has locked ``folder``; None where that can't be known.

    For onlookers: no file is made or written. The locks of other machines are seen only on network
    file systems that share them, so False says little about a run that is elsewhere.
    """
    path = folder.resolve() / NAME
    if path in _held:  # looking at the file, this process would give its lock away
        return True
    try:
        if not path.is_file():
            return False
        file = path.open("rb")
    except OSError:  # it may not be looked at
        return None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except (OSError, AttributeError):  # a network file system, or Windows, without locks
            return None
    return False


def must_take(folder: Path) -> None:
    """Lock ``folder`` for the rest of this process.

    Raises:
        FoveaError: another process trains in it.
    """
    who = take(folder)
    if who is not None:
        raise FoveaError(
            f"{folder} is being trained in by {who}. Wait for its end or stop it (Ctrl-C, or "
            "SIGTERM from elsewhere); to train another run beside it, leave resume= out."
        )
