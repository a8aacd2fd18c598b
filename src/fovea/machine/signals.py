"""Signals that ask a run to stop: Ctrl-C, and what schedulers send before they kill.

While a network is trained a signal is only noted: `fovea.checkpoints.schedule` stops all ranks at
the end of a step and saves. At any other time there is nothing to save, and it ends the command at
once. Nothing here imports torch.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

TEMPORARY_FAILURE = 75
"""Exit status for "stopped from outside, start me again": EX_TEMPFAIL of BSD's sysexits.h."""

_LISTENED = [signal.SIGINT, signal.SIGTERM]
# Sent by SLURM where it is asked to (--signal=USR1@90), and by submitit (USR2).
_LISTENED += [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class StopSignals:
    """The signals that this process got.

    Attributes:
        received: the first one, None before it.
        deferred: whether a signal is only noted.
        speaks: whether this process says that a signal came: one of all ranks.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferred = False
        self.speaks = True
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    @property
    def number(self) -> int:
        """The number of the signal that was received, 0 before it."""
        return 0 if self.received is None else int(self.received)

    @property
    def status(self) -> int:
        """The exit status after a stop: 130 after Ctrl-C, else 75."""
        return 130 if self.received in {signal.SIGINT, None} else TEMPORARY_FAILURE

    def listen(self) -> bool:
        """Take the signals over; return whether that was not so before."""
        if self._before:
            return False
        self.received, self._pid = None, os.getpid()
        self._before = {number: signal.signal(number, self._handle) for number in _LISTENED}
        return True

    def give_back(self) -> None:
        """Let the signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._handle_in_worker(number)
            return
        again, name = self.received is not None, signal.Signals(number)
        if again and name != signal.SIGINT:
            return  # schedulers repeat theirs; a person who presses Ctrl-C twice means it
        self.received = self.received or name
        if again or not self.deferred:
            raise KeyboardInterrupt
        if self.speaks:
            what = "Ctrl-C" if name == signal.SIGINT else name.name
            more = " (again: stop at once)" if name == signal.SIGINT else ""
            # Not print: the signal may have come in the middle of one.
            os.write(2, f"\n{what}: saving as soon as the step is over{more} …\n".encode())

    def _handle_in_worker(self, number: int) -> None:
        """Do what a forked process without a handler would do; let its parent decide on Ctrl-C."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


STOP = StopSignals()
"""Signals go to a process as a whole, so there is one of it."""
