"""Jobs as processes of this machine: one after another, several at once, or one a GPU."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fovea.errors import FoveaError
from fovea.launchers.job import INTERRUPTED, Job, exit_status
from fovea.machine.signals import STOP

_POLL_S = 0.1


@dataclass
class _Slot:
    """A place for one job at a time: its processors, and its part of the environment."""

    cores: list[int]
    environment: dict[str, str]
    job: Job | None = None
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0


class LocalLauncher:
    """Runs up to ``jobs`` jobs at once, each in a process of its own.

    A single one writes to the terminal. Several write to ``output.log`` in their run folders, and
    share out the processors, so that each sizes its threads and loader workers by its own part.

    Args:
        jobs: how many at once, at least 1.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def run(self, jobs: list[Job], need_results: bool) -> None:
        """Run ``jobs`` to their ends; see `fovea.launchers.Launcher`."""
        del need_results  # whoever runs here waits anyway
        environments = self._environments()
        cores = _shared_out(len(environments))
        slots = [_Slot(*slot) for slot in zip(cores, environments, strict=True)]
        waiting, passed_on = deque(jobs), False
        with _signals_noted():
            while True:
                stopping = STOP.received is not None or exit_status(jobs) is not None
                for slot in slots:
                    if slot.process is not None and slot.process.poll() is not None:
                        _end(slot, quiet=len(slots) > 1)
                    if slot.process is None and waiting and not stopping:
                        _start(slot, waiting.popleft(), quiet=len(slots) > 1)
                if STOP.received is not None and not passed_on:
                    _pass_on(STOP.received, slots)
                    passed_on = True
                if not any(slot.process for slot in slots) and (stopping or not waiting):
                    break
                time.sleep(_POLL_S)
        if STOP.received is not None or exit_status(jobs) == INTERRUPTED:
            raise KeyboardInterrupt
        if (status := exit_status(jobs)) is not None:
            sys.exit(status)

    def places(self) -> int:
        """Return how many jobs run at once.

        Raises:
            FoveaError: this machine has no place for one.
        """
        return len(self._environments())

    def _environments(self) -> list[dict[str, str]]:
        """Return the variables that each slot adds."""
        return [{} for _ in range(self.jobs)]


class BasicLauncher(LocalLauncher):
    """Runs one job after another; a run that is not of a sweep is no job, but just runs."""

    def __init__(self) -> None:
        super().__init__(jobs=1)


class GpuLauncher(LocalLauncher):
    """Runs one job a GPU (or a group of GPUs), each seeing only its own.

    Args:
        gpus: numbers of the GPUs to use; "auto": those of this machine, or what
            ``CUDA_VISIBLE_DEVICES`` lists.
        gpus_per_job: as many devices as each job trains on, at least 1.
    """

    def __init__(self, gpus: list[int] | Literal["auto"], gpus_per_job: int) -> None:
        super().__init__(jobs=1)
        self.gpus = gpus
        self.gpus_per_job = gpus_per_job

    def _environments(self) -> list[dict[str, str]]:
        """Return the GPUs of each slot; those left over stay idle."""
        gpus = _visible_gpus() if self.gpus == "auto" else [str(gpu) for gpu in self.gpus]
        each = self.gpus_per_job
        groups = [gpus[i : i + each] for i in range(0, len(gpus) - each + 1, each)]
        if not groups:
            raise FoveaError(
                f"launcher=local_gpus: a job needs {each} GPU{'s' * (each > 1)}, and there "
                f"{'is' if len(gpus) == 1 else 'are'} {len(gpus) or 'none'}. On the CPU: "
                "launcher=parallel launcher.jobs=2"
            )
        return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]


def _visible_gpus() -> list[str]:
    """Return the names of the CUDA GPUs that this process may use, as CUDA_VISIBLE_DEVICES does."""
    import torch  # slow, and only this launcher asks

    listed, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return [str(i) for i in range(count)] if listed is None else listed.split(",")[:count]


def _shared_out(count: int) -> list[list[int]]:
    """Return the processors of each of ``count`` slots: none for one, nor where they are too few.

    Nor where the system can't set them.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // count if count > 1 else 0
    return [cores[i * each : (i + 1) * each] for i in range(count)]


def _start(slot: _Slot, job: Job, quiet: bool) -> None:
    log = job.folder / "output.log"
    print(f"\n{job.title()}" + (f"\n  output in {log}" if quiet else ""), flush=True)
    settings: dict[str, Any] = {"env": {**os.environ, **slot.environment}}
    with log.open("ab") if quiet else contextlib.nullcontext() as file:
        if quiet:
            settings |= {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        slot.process = subprocess.Popen(job.command, **settings)
    slot.job, slot.began = job, time.monotonic()
    if slot.cores:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(slot.process.pid, slot.cores)


def _end(slot: _Slot, quiet: bool) -> None:
    assert slot.job is not None
    assert slot.process is not None
    slot.job.status = slot.process.returncode
    if quiet:
        print(f"{slot.job.ending()} ({time.monotonic() - slot.began:.0f} s)", flush=True)
    slot.job = slot.process = None


def _pass_on(received: signal.Signals, slots: list[_Slot]) -> None:
    """Let the jobs save and end."""
    # A terminal has sent them Ctrl-C by itself, and a second one would stop them at once; a second
    # SIGTERM does nothing.
    sent = signal.SIGTERM if received == signal.SIGINT else received
    for slot in slots:
        if slot.process is not None:
            slot.process.send_signal(sent)


@contextlib.contextmanager
def _signals_noted() -> Iterator[None]:
    """Inside, a signal only sets ``STOP.received`` (a second Ctrl-C raises): the jobs speak."""
    mine = STOP.listen()
    STOP.speaks, STOP.deferred = False, True
    try:
        yield
    finally:
        STOP.deferred = False
        if mine:
            STOP.give_back()
