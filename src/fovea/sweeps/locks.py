"""Who is alive: locks that the operating system frees when their holder dies, however it dies."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout
from optuna.storages.journal._file import BaseJournalFileLock


def study_lock(folder: Path) -> FileLock:
    """Return the lock under which a process decides which trial it takes."""
    return FileLock(_place(folder) / "study.lock")


def take(folder: Path, trial: int) -> FileLock | None:
    """Return the lock of a trial, now held by this process, or None if another worker lives.

    A heartbeat would need clocks that agree and a time to wait; the kernel (on NFS: the server)
    drops a lock of `fcntl.flock` with its process.

    Args:
        folder: of the sweep.
        trial: its number.
    """
    lock = FileLock(_place(folder) / f"{trial}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _place(folder: Path) -> Path:
    place = folder / "locks"
    place.mkdir(parents=True, exist_ok=True)
    return place


class JournalLock(BaseJournalFileLock):
    """Lock of a study's journal: not left behind by a killed process, unlike Optuna's own.

    Args:
        journal: the file. Half a line at its end, of a writer that was killed or had no room, is
            removed before the next one is written.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(_place(journal.parent) / "journal.lock")

    def acquire(self) -> bool:
        """Wait for the lock, mend the journal, and return True."""
        self._lock.acquire()
        with self._journal.open("r+b") as file:
            end = file.seek(0, 2)
            start = max(0, end - 2**20)  # a line is at most some kilobytes
            file.seek(start)
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(start + tail.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Give it back."""
        self._lock.release()
