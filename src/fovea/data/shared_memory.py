"""Finished batches wait for training in shared memory: is it large enough, and what if not."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from fovea.errors import FoveaError

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
"""Where torch's workers put their batches on Linux; containers often make it 64 MB."""

AT_HAND = 2
"""Batches that training itself holds while it takes the next: the old one and the new one."""

MOST_PATHS = 5

REAPING_S = 5.0
"""How long a worker may take to die, writing its memory to disk for instance."""

_DEATH = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: ([\w ]+)|exited)")
_FULL = "unable to allocate shared memory"
_SPOKE = "in DataLoader worker process"  # an error that a living worker reports

_WHAT_TO_DO = {
    "Bus error": "Most likely /dev/shm is full. Start the container with more of it: docker run "
    "--shm-size=8g, or --ipc=host. Or load with fewer workers (data.num_workers; 0 needs none) or "
    "a smaller data.batch_size.",
    "Killed": "Most likely the memory ran out. Load with fewer workers (data.num_workers), or ask "
    "for more memory.",
    "Segmentation fault": "Most likely one of the files is to blame: decode with data.decode=pil, "
    "or look for it with data.check=true and remove it.",
    "Terminated": "Something outside ended it: a person, a batch system, the machine going down.",
}
_WHAT_TO_DO["Aborted"] = _WHAT_TO_DO["Segmentation fault"]
_OTHERWISE = "data.num_workers=0 loads in the training process and shows the error itself."


@cache
def has_shared_memory() -> bool:
    """Return whether workers can be had; where not, a warning says what to do about it."""
    try:
        multiprocessing.Lock()
        torch.empty(1).share_memory_()
    except (OSError, RuntimeError) as error:
        logger.warning(
            "%s can't be used (%s), so images are loaded in the training process, without workers, "
            "which is slower. Containers get shared memory by docker run --shm-size=8g, or "
            "--ipc=host.",
            *(SHARED_MEMORY, error),
        )
        return False
    return True


def check_shared_memory(
    batch_bytes: int,
    num_workers: int,
    prefetch: int = 2,
    local_ranks: int = 1,
    folder: Path = SHARED_MEMORY,
) -> None:
    """Raise if the batches that may wait for training are more than the shared memory.

    All of them do wait whenever training pauses, for a validation for example. Batches that fit
    the shared memory but not what is free of it are a warning. Without workers, or without such a
    folder, there is nothing to check.

    Args:
        batch_bytes: of the images of one rank's batch.
        num_workers: of a loader.
        prefetch: batches that each worker makes ahead.
        local_ranks: processes of this machine that train, each with its own loader.
        folder: where the shared memory is mounted.

    Raises:
        FoveaError: what is needed, what there is, and how to have more or need less.
    """
    need = local_ranks * (num_workers * prefetch + AT_HAND) * batch_bytes
    if num_workers == 0 or not folder.is_dir():
        return
    state = os.statvfs(folder)
    total, free = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
    if total == 0 or need <= free:  # 0: mounted without a limit
        return
    room = total if need > total else free
    fitting = max(0, room // (local_ranks * batch_bytes) - AT_HAND) // prefetch
    there_is = f"only {_mb(total)}" if need > total else f"{_mb(free)} free of {_mb(total)}"
    ranks = f"{local_ranks} ranks x " if local_ranks > 1 else ""
    message = (
        f"Up to {_mb(need)} of batches wait for training in shared memory ({ranks}({num_workers} "
        f"workers x {prefetch} + {AT_HAND}) batches x {_mb(batch_bytes)}), and {folder} has "
        f"{there_is}. Start the container with more of it: docker run "
        f"--shm-size={math.ceil(2 * need / 1e9)}g, or --ipc=host. Or load with "
        f"data.num_workers={fitting} or a smaller data.batch_size."
    )
    if need > total:
        raise FoveaError(message)
    logger.warning(message)


def explain_dead_worker(
    error: BaseException, paths: Sequence[str] = (), workers: Sequence[BaseProcess] = ()
) -> FoveaError | None:
    """Return what the death of a loader's worker means and what to do; None for another error.

    Args:
        error: as it came out of the loader, or out of whatever training was at: torch raises it
            in the middle of anything. What it was raised from is looked at as well.
        paths: files that the worker may have been reading; a few of them are named.
        workers: of the loader. Half of the time the loader only says that a connection broke; then
            they tell what happened. Those that died are waited for, so that nothing is raised on
            their account afterwards.
    """
    try:
        return _explanation(error, paths, workers)
    except RuntimeError:  # torch tells of the death at any moment, so perhaps here; but once
        return _explanation(error, paths, workers)


def _explanation(
    error: BaseException, paths: Sequence[str], workers: Sequence[BaseProcess]
) -> FoveaError | None:
    said = "\n".join(_chain(error))
    signal_name = None if _FULL in said else _end_of_worker(error, said, workers)
    if _FULL in said:
        what, do = "found no room for its batch in shared memory", _WHAT_TO_DO["Bus error"]
    elif signal_name is None:
        return None
    else:
        what = f"died: {signal_name}" if signal_name else "exited unexpectedly"
        do = _WHAT_TO_DO.get(signal_name, _OTHERWISE)
    reading = ""
    if paths:
        more = f" and {len(paths) - MOST_PATHS} more" if len(paths) > MOST_PATHS else ""
        reading = f" The files at hand: {', '.join(paths[:MOST_PATHS])}{more}."
    return FoveaError(f"A worker that loads images {what}.{reading} {do}")


def _end_of_worker(error: BaseException, said: str, workers: Sequence[BaseProcess]) -> str | None:
    """Return the name of the signal that ended a worker, "" if it just ended, None if none did."""
    deaths = list(_DEATH.finditer(said))
    broken = isinstance(error, EOFError | OSError) and _SPOKE not in said
    if not deaths and not broken:
        return None
    with suppress(RuntimeError):  # torch tells of the death at any moment, so perhaps here
        gone = wait([worker.sentinel for worker in workers], timeout=REAPING_S if workers else 0)
        for worker in workers:
            if worker.sentinel in gone:
                worker.join()
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    for code in codes:
        if code < 0:
            return str(signal.strsignal(-code)).partition(":")[0]  # "Killed: 9" on macOS
    named = [death[1] for death in deaths if death[1]]
    return named[0] if named else "" if deaths or codes else None


def _chain(error: BaseException | None) -> list[str]:
    """Return what ``error`` says, and what the errors it came from say."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return said


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e7 else f"{size / 1e6:,.0f} MB"
