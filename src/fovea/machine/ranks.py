"""The ranks of a run end together: none waits for a dead one for long, and none is left behind."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning import Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import distributed
from torch.distributed import distributed_c10d

from fovea import console, run_folder
from fovea.checkpoints import generations
from fovea.errors import FoveaError
from fovea.machine.no_room import spared
from fovea.machine.signals import TEMPORARY_FAILURE

log = logging.getLogger("fovea")

_PARENT = "FOVEA_RANK_ZERO_PID"
_POLL = 0.5
_GRACE = 10.0
"""Seconds that a rank gets to end by itself, with a message of its own, once another has failed."""
_LONG = timedelta(days=7)
_ASKED_TO_STOP = {
    TEMPORARY_FAILURE: TEMPORARY_FAILURE,
    -signal.SIGTERM: TEMPORARY_FAILURE,
    130: 130,
}
"""From how a rank ended that a signal stopped before the ranks had met: the command's status."""


def watch_over(trainer: Trainer, folder: Path, timeout: float) -> None:
    """Let ``trainer`` start its ranks so that they end together.

    Where fovea starts the ranks, rank 0 looks after the others and they after rank 0. Ranks started
    by torchrun or SLURM are looked after there. In any case a rank waits at most ``timeout``
    seconds for the others.

    Args:
        trainer: that has not been used yet.
        folder: of the run.
        timeout: of one collective operation, in seconds. More than the longest time that a rank is
            busy alone, such as rank 0 writing a checkpoint.
    """
    strategy: Any = trainer.strategy
    if hasattr(strategy, "_timeout"):
        strategy._timeout = timedelta(seconds=timeout)
    launcher = strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        strategy._launcher = _WatchedLauncher(launcher, folder)
        _end_with_rank_zero()


def wait_for_main(done: str) -> None:
    """Return on rank 0 at once, on the others when rank 0 has called this, too, however late.

    For work of rank 0 that may take longer than a collective operation waits.

    Args:
        done: name of the work, another one each time.
    """
    if not distributed.is_initialized():
        return
    store, key = distributed_c10d._get_default_store(), f"fovea/{done}"
    if distributed.get_rank() == 0:
        store.set(key, "")
    else:
        store.wait([key], _LONG)  # raises if rank 0, who keeps the store, has died


class _WatchedLauncher(_SubprocessScriptLauncher):
    """Lightning's, with another watch over the ranks it starts.

    Lightning's own looks every five seconds, and ends rank 0 by SIGKILL, which says nothing.
    """

    def __init__(self, launcher: _SubprocessScriptLauncher, folder: Path) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self._watch = _Watch(self.procs, folder)

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any
    ) -> Any:
        """Start the other ranks, unless they run, and return what ``function`` does in this one."""
        self.cluster_environment.validate_settings(self.num_processes, self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[_PARENT] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[_PARENT]
            self._watch = _Watch(self.procs, self._watch.folder)
            self._watch.start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except Exception as error:
            rank = self.cluster_environment.global_rank()
            if _lost_contact(error):
                self._watch.end_if_one_is_dead() if rank == 0 else time.sleep(_GRACE)
            elif rank and not isinstance(error, FoveaError):
                print(f"\nrank {rank} (pid {os.getpid()}) failed:", file=sys.stderr, flush=True)
            raise
        finally:
            if sys.exc_info()[0] is not None:
                self._watch.over.set()  # rank 0 ends with an error of its own


class _Watch(threading.Thread):
    """Ends this process, rank 0, and all others when one of them has died.

    Args:
        processes: rank 1 and on.
        folder: of the run.
    """

    def __init__(self, processes: list[subprocess.Popen[Any]], folder: Path) -> None:
        super().__init__(daemon=True, name="watch over ranks")
        self.processes = processes
        self.folder = folder
        self.over = threading.Event()

    def run(self) -> None:
        """Look until the run is over."""
        while not self.over.wait(_POLL):
            dead = self._dead()
            # After an error of its own the rank has said what it was, and rank 0 may be about to
            # say the same.
            if dead and (dead[1].returncode < 0 or not self.over.wait(_GRACE)):
                self._end_all(*dead)

    def end_if_one_is_dead(self) -> None:
        """Look for a while: the death of a process is known a little later than its silence."""
        deadline = time.monotonic() + _GRACE / 2
        while time.monotonic() < deadline:
            if dead := self._dead():
                self._end_all(*dead)
            time.sleep(_POLL / 5)

    def _dead(self) -> tuple[int, subprocess.Popen[Any]] | None:
        """Return (rank, process) of one that did not end well, killed ones before others."""
        ended = [(rank, p) for rank, p in enumerate(self.processes, start=1) if p.poll()]
        return min(ended, key=lambda one: one[1].returncode, default=None)

    def _end_all(self, rank: int, process: subprocess.Popen[Any]) -> NoReturn:
        """Say which rank died of what, and end this process in whatever it is waiting for."""
        reason = f"rank {rank} (pid {process.pid}) {_cause(process.returncode)}"
        for other in self.processes:
            other.kill()
        asked = _ASKED_TO_STOP.get(process.returncode)
        log.error("\n%s: %s All other ranks are ended.", "stopped" if asked else "error", reason)
        if (self.folder / "summary.json").is_file():
            state = {"state": "interrupted"} if asked else {"state": "failed", "error": reason}
            with spared("summary.json", self.folder):
                run_folder.write_summary(self.folder, **state)
        if generations.existing(self.folder / run_folder.CHECKPOINTS / generations.LAST):
            again = console.command("train", console.given("resume", self.folder))
            log.error("To go on: %s", again)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(asked or 1)


def _cause(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}; what it said stands above."
    name = signal.Signals(-status).name
    if name != "SIGKILL":
        return f"was killed by signal {-status} ({name})."
    return (
        "was killed by signal 9 (SIGKILL). If nobody did that, the machine ran out of memory: "
        "dmesg | grep -i 'killed process'. Fewer data.num_workers need less."
    )


def _lost_contact(error: Exception) -> bool:
    """Return whether ``error`` says that another rank is silent, not what is wrong."""
    if isinstance(error, torch.distributed.DistError):
        return True
    words = r"gloo|nccl|by peer|broken pipe|process ?group|timed out waiting"
    return isinstance(error, RuntimeError) and bool(re.search(words, str(error), re.IGNORECASE))


def _end_with_rank_zero() -> None:
    """Let this process, started by rank 0, end as soon as that is gone, however it went."""
    parent = int(os.environ.get(_PARENT, "0"))
    if not parent:
        return
    del os.environ[_PARENT]  # one thread does

    def end() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL)
        # Not sys.exit: the main thread may wait for rank 0 in a collective operation.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end, daemon=True, name="watch over rank 0").start()


def status_of_another(trainer: Trainer, status: int) -> int:
    """Return the exit status of a rank other than 0 of a run that ends with ``status``.

    It is 0 where rank 0 started it: rank 0 tells the world, and its watch takes others for deaths.
    """
    started_here = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
    return 0 if started_here and "LOCAL_RANK" in os.environ else status


def wait_for_others(trainer: Trainer) -> None:
    """Wait for the ranks that this one started to end, and kill those that do not."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
