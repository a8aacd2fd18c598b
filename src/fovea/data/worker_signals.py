"""Requests to stop are for the process that trains; its workers go on feeding it until it ends.

Terminals and schedulers send their signals to all processes at once. A worker that obeyed would
take away the batches of the very step that is to be finished and saved.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = {getattr(signal, name) for name in _NAMES if hasattr(signal, name)}


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait while workers are forked: they begin with the signals held back as well."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which does not fork
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent_only() -> None:
    """In a worker: ignore the signals, but SIGTERM from the parent, which ends stuck workers so."""
    if not hasattr(signal, "sigwaitinfo"):  # macOS, where it begins with the mask of `held_back`
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for number in STOP_SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS - {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
