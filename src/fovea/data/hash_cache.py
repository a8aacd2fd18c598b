"""Perceptual hashes of image files, kept from one run to the next.

A file in `cache_folder` for each data set's root, which may be deleted at any time. A hash is used
as long as the path, the size and the time of the last change of the image's file are the same.
Images in shards or in memory are hashed anew each time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fovea.data.index import cache_folder, write_whole
from fovea.data.sources import FileSource
from fovea.data.splits import Split

logger = logging.getLogger(__name__)

Rows = NDArray[np.uint64]
"""(n, 3): hash, hash of the mirrored image, state."""

SMALLEST_KEPT = 1000
"""Fewer images are hashed in a second, so small data sets leave no file behind."""

FORMAT = 1
"""Of the files, and part of their names."""

# Asking for a file's time waits for the disk or the network, so more threads than processors pay.
_THREADS = 16


class HashCache:
    """The kept hashes of one split's images.

    Args:
        split: of `FileSource`; nothing is kept of others.
    """

    def __init__(self, split: Split) -> None:
        self.size = len(split)
        self._file = _file_of(split)
        self._keys = _keys(split) if self._file else np.zeros(0, dtype=np.uint64)
        self._kept = _load(self._file)  # (n, 4): key, and its row; sorted by key

    def read(self) -> tuple[Rows, NDArray[np.bool_]]:
        """Return (N, 3) rows, 0 where unknown, and (N,) which are known."""
        rows = np.zeros((self.size, 3), dtype=np.uint64)
        known = np.zeros(self.size, dtype=bool)
        if len(self._kept):
            place = np.searchsorted(self._kept[:, 0], self._keys) % len(self._kept)
            known = self._kept[place, 0] == self._keys
            rows[known] = self._kept[place[known], 1:]
        return rows, known

    def add(self, new: NDArray[np.int64], rows: Rows) -> None:
        """Keep the rows ``new`` of ``rows`` (N, 3), too."""
        if self._file is None or not len(new):
            return
        entries = np.column_stack([self._keys[new], rows[new]])
        # Another process may have added its own since.
        kept = np.concatenate([entries, _load(self._file)])
        _, first = np.unique(kept[:, 0], return_index=True)
        _write(self._file, kept[first])


def _file_of(split: Split) -> Path | None:
    cache = cache_folder()
    if cache is None or not isinstance(split.source, FileSource) or len(split) < SMALLEST_KEPT:
        return None
    name = hashlib.sha256(os.fsencode(split.source.root)).hexdigest()[:32]
    return cache / f"hashes{FORMAT}-{name}.npy"


def _keys(split: Split) -> NDArray[np.uint64]:
    """Return (N,) what tells one state of a file from another; 0 for a file that is gone."""

    def key(number: int) -> int:
        path = split.source.path(number)
        try:
            facts = os.stat(path)
        except OSError:
            return 0
        text = os.fsencode(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

    with ThreadPoolExecutor(_THREADS) as threads:
        return np.array(list(threads.map(key, split.numbers.tolist())), dtype=np.uint64)


def _load(file: Path | None) -> NDArray[np.uint64]:
    nothing = np.zeros((0, 4), dtype=np.uint64)
    if file is None:
        return nothing
    try:
        kept = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        return nothing
    except Exception as error:  # a damaged file raises anything
        logger.debug("cannot use the hashes in %s: %s", file, error)
        return nothing
    return kept if kept.dtype == np.uint64 and kept.shape[1:] == (4,) else nothing


def _write(file: Path, rows: NDArray[np.uint64]) -> None:
    """Keep ``rows``, whole or not at all; where that cannot be, go on without."""
    try:
        write_whole(file, lambda stream: np.save(stream, rows))
    except OSError as error:
        logger.debug("the hashes are not kept: %s", error)
