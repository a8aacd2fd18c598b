"""Memory in which workers hand over their batches, used again and again.

Torch makes new shared memory for each batch, and the system has to clear it page by page: on small
images a quarter of a worker's time. Here each worker has a few places of its own. A place is free
again when nothing in the main process refers to its batch any more, however long that is; a worker
that finds none free uses new memory, as ever.
"""

from __future__ import annotations

import mmap
import multiprocessing
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

SLOTS_A_WORKER = 4
"""Two batches that wait, one that is being made, and one that training has not let go yet."""


class BatchSlots:
    """Places for batches of one shape, shared with the worker processes that are forked later.

    Args:
        num_workers: of the loader.
        shape: (B, H, W, C) of a batch.

    Attributes:
        key: by which a `FilledSlot` finds it again in the main process.
    """

    def __init__(self, num_workers: int, shape: tuple[int, int, int, int]) -> None:
        count = num_workers * SLOTS_A_WORKER
        size = int(np.prod(shape))
        # Anonymous: it needs no file, and so none of the room of /dev/shm.
        memory = mmap.mmap(-1, count * size + count)
        everything = np.frombuffer(memory, dtype=np.uint8)
        self._pixels = everything[: count * size].reshape(count, *shape)
        self._taken = everything[count * size :]
        self.key = id(self)
        _ALL[self.key] = self

    def take(self, worker: int) -> int | None:
        """Return a free place of ``worker``, which calls this, or None."""
        first = worker * SLOTS_A_WORKER
        for slot in range(first, first + SLOTS_A_WORKER):
            if not self._taken[slot]:
                self._taken[slot] = 1
                return slot
        return None

    def pixels(self, slot: int, count: int) -> Tensor:
        """Return the first images of a place, (count, C, H, W) uint8, channels_last, to write."""
        return torch.from_numpy(self._pixels[slot][:count]).permute(0, 3, 1, 2)

    def release(self, slot: int) -> None:
        """Let the worker use the place again."""
        self._taken[slot] = 0

    def images(self, slot: int, count: int) -> Tensor:
        """Return the batch (count, C, H, W), as `pixels`; the place is free when it is gone."""
        pixels = self._pixels[slot][:count]
        # The tensor's memory keeps this array, and so does that of each view of it.
        weakref.finalize(pixels, self.release, slot)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


_ALL: weakref.WeakValueDictionary[int, BatchSlots] = weakref.WeakValueDictionary()


class FilledSlot:
    """A batch of images on its way from a worker: which place it lies in."""

    def __init__(self, key: int, slot: int, count: int) -> None:
        self.key = key
        self.slot = slot
        self.count = count
        self._arrived = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.key, self.slot, self.count)

    def __del__(self) -> None:
        # Thrown away unread, as at the end of an epoch that is cut short.
        if self._arrived and (slots := _ALL.get(self.key)) is not None:
            slots.release(self.slot)

    def images(self) -> Tensor:
        """Return the batch; once."""
        self._arrived = False
        return _ALL[self.key].images(self.slot, self.count)

    def pin_memory(self, device: Any = None) -> Tensor:
        """Return a copy in pinned memory: torch's thread for that calls this."""
        return self.images().pin_memory()


def _arrive(key: int, slot: int, count: int) -> FilledSlot:
    filled = FilledSlot(key, slot, count)
    filled._arrived = True
    return filled


def make_slots(num_workers: int, shape: tuple[int, int, int, int]) -> BatchSlots | None:
    """Return places for the batches of a loader, or None where workers would not share them."""
    if num_workers == 0 or multiprocessing.get_start_method() != "fork":
        return None
    try:
        return BatchSlots(num_workers, shape)
    except OSError:  # no memory for it
        return None
