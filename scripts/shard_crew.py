"""Processes that make and verify shards; all stop at the next image when one of them fails."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from shard_files import Job, Workshop
from tqdm import tqdm

from fovea.errors import FoveaError

_POLL = 0.2  # seconds between two looks at the progress

# Spawned, since this process has threads, which a fork would lose.
_CONTEXT = multiprocessing.get_context("spawn")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Common:
    """What all processes have in common.

    Attributes:
        workshop: what they work on.
        done: counts images.
        stop: an event, set when they shall stop.
    """

    workshop: Workshop
    done: Any
    stop: Any


class Crew:
    """Processes that work on one workshop; a context, at whose end they end.

    Args:
        workshop: what they work on.
        size: how many. Below 2 the work is done in this process, which saves their start.
    """

    def __init__(self, workshop: Workshop, size: int) -> None:
        self._common = Common(workshop, _CONTEXT.Value("q", 0), _CONTEXT.Event())
        self._pool: ProcessPoolExecutor | None = None
        if size > 1:
            self._pool = ProcessPoolExecutor(size, _CONTEXT, _join_others, (self._common,))

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self._common.stop.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(
        self, task: Callable[[Job], _Result], jobs: Sequence[Job], bar: tqdm[Any]
    ) -> list[_Result]:
        """Return what ``task`` (`make` or `verify`) returns of each of ``jobs``.

        Raises:
            FoveaError: what one of them raised; a process that died.
        """
        already = bar.n - self._common.done.value
        results = []
        for result in self._results(task, jobs):
            if progress := already + self._common.done.value - bar.n:
                bar.update(progress)
            results += result
        return results

    def _results(
        self, task: Callable[[Job], _Result], jobs: Sequence[Job]
    ) -> Iterator[list[_Result]]:
        """Yield results in order, one in a list or, while one is waited for, empty lists."""
        if self._pool is None:
            _join(self._common)
            yield from ([task(job)] for job in jobs)
            return
        try:
            for future in [self._pool.submit(task, job) for job in jobs]:
                while not wait([future], _POLL).done:
                    yield []
                yield [future.result()]
        except BrokenProcessPool:
            raise FoveaError(
                "A process that makes shards was killed, as happens when memory runs out. Type the "
                "same command again with fewer of them, such as num_workers=1: it goes on where it "
                "was."
            ) from None


def make(job: Job) -> None:
    """Make one shard."""
    assert _common is not None
    try:
        for _ in _common.workshop.write(job):
            _count(1)
            if _common.stop.is_set():
                return
    except BaseException:
        _common.stop.set()
        raise


def verify(job: Job) -> Any:
    """Return what `Workshop.verify` does of one shard."""
    assert _common is not None
    found = _common.workshop.verify(job)
    _count(len(job.rows))
    return found


_common: Common | None = None
"""Of the crew that this process belongs to."""


def _join(common: Common) -> None:
    global _common
    _common = common


def _join_others(common: Common) -> None:
    """Join as one process of several."""
    _join(common)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the first one tells them


def _count(images: int) -> None:
    assert _common is not None
    with _common.done.get_lock():
        _common.done.value += images
