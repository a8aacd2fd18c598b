"""What each loading process is reading and has read, in memory that all of them share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info


class Journal:
    """What each worker is reading, and how many images it read: seen by all processes.

    Args:
        num_workers: 0 where the training process loads by itself.
    """

    def __init__(self, num_workers: int) -> None:
        rows = torch.zeros(max(1, num_workers), 3, dtype=torch.int64)
        self._rows = rows.share_memory_() if num_workers else rows  # not every machine can
        self._rows[:, 0] = -1

    def row(self) -> Row:
        """Return what this process writes down."""
        worker = get_worker_info()
        # As NumPy sees it: a tenth of the time of a tensor's element.
        return Row(self._rows.numpy()[0 if worker is None else worker.id])

    def reading(self) -> list[int]:
        """Return the samples that are being read, or were when their worker died."""
        return [index for index in self._rows[:, 0].tolist() if index >= 0]

    def counts(self) -> tuple[int, int]:
        """Return how many images were read, and how many of them by the fallback."""
        _, read, slow = self._rows.sum(0).tolist()
        return read, slow


class Row:
    """What one process is reading and has read."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self._numbers = numbers

    def begin(self, index: int) -> None:
        """Note that sample ``index`` is being read from now on."""
        self._numbers[0] = index

    def end(self, fast: bool) -> None:
        """Note that it is read, and whether the fast way could read it."""
        self._numbers[0] = -1
        self._numbers[1] += 1
        if not fast:
            self._numbers[2] += 1
