"""Near-duplicates: which images of one split are also in another, re-encoded, resized or mirrored.

Two steps. Images whose perceptual hashes differ in few of their 64 bits are found, all of them:
every pair is looked at. Of these, the ones are kept whose thumbnails show the same shapes. Found
are copies that were compressed, resized, brightened or turned to grey, with hardly an exception,
and those that lost 3 % of their width and height; of those that lost 5 % two in three, and few that
lost 10 % (400 photographs of ImageNet). Mirrored copies count: training mirrors images, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.data.decoding import Decode
from fovea.data.fingerprints import FLAT, SMALLEST, Fingerprints, detail, fingerprints, thumbnails
from fovea.data.processors import rank_processors
from fovea.data.splits import Split

MAX_DISTANCE = 10
"""Bits in which the hashes of near-duplicates differ at most. Of pairs of different photographs
about 2 in a million differ in no more (CIFAR-10, test against train)."""

MIN_SIMILARITY = 0.6
"""Least correlation of the details of two thumbnails. Of 254 test images of CIFAR-10 that it leaves
with a twin in train, some 240 are the same photograph to the eye; from 0.5 to 0.6, half are."""

NEAREST = 64
"""Candidates of an image that are compared, nearest hashes first: a thousand copies of one image
would make a million pairs."""

# Pairs that are looked at at once: what fits in a processor's cache.
_ROWS, _COLUMNS = 64, 4096


Thumbs = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Thumbnails of different samples (U, SIDE, SIDE), and (M,) which of them is whose."""


@dataclass(frozen=True)
class Duplicate:
    """An image of one split, and what it most resembles in the other.

    Attributes:
        index: of the sample in the first split.
        twin: of the sample in the second split.
        distance: bits in which their hashes differ.
        similarity: correlation of their details, to 1.
        mirrored: whether they match flipped left to right.
        copies: near-duplicates of it in the second split, of the `NEAREST` that were compared.
    """

    index: int
    twin: int
    distance: int
    similarity: float
    mirrored: bool
    copies: int


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        found: a `Duplicate` an image of the first split that has any, most similar first.
        unreadable: images of both splits that can't be read.
        flat: images of both splits that show nothing or are too small, and so were not compared.
    """

    found: list[Duplicate]
    unreadable: int
    flat: int

    def left_out(self) -> str:
        """Return what was not compared, in words; "" if everything was."""
        small = f"are blank or smaller than {SMALLEST} pixels"
        parts = [(self.unreadable, "can't be read"), (self.flat, small)]
        words = [f"{count:,} that {why}" for count, why in parts if count]
        return f"Not compared were images of both splits: {', '.join(words)}." if words else ""


class DuplicateFinder:
    """Finds near-duplicates between splits; each split is hashed once.

    Args:
        workers: processes that read images; 0: this one.
        decode: see `fovea.data.decoding.open_picture`.
        max_distance: bits, 0 to 64.
        min_similarity: -1 to 1.
    """

    def __init__(
        self,
        workers: int = 0,
        decode: Decode = "auto",
        max_distance: int = MAX_DISTANCE,
        min_similarity: float = MIN_SIMILARITY,
    ) -> None:
        self.max_distance = max_distance
        self.min_similarity = min_similarity
        self._reading: Any = {"workers": workers, "decode": decode}
        self._hashed: list[tuple[Split, Fingerprints]] = []

    def find(self, first: Split, second: Split) -> Duplicates:
        """Return the images of ``first`` that have a near-duplicate in ``second``.

        Of one split with itself, a twin comes first: without what is found, one of each remains.
        """
        within = second is first
        prints, others = self._fingerprints(first), self._fingerprints(second)
        pairs = candidates(prints, others, self.max_distance, within)
        similar = _similarity(
            pairs, self._thumbnails(first, pairs.rows), self._thumbnails(second, pairs.columns)
        )
        both = [prints] if within else [prints, others]
        unreadable = sum(part.unreadable for part in both)
        flat = sum(int((~part.usable).sum()) for part in both) - unreadable
        return Duplicates(_best(pairs, similar, self.min_similarity), unreadable, flat)

    def _fingerprints(self, split: Split) -> Fingerprints:
        for hashed, prints in self._hashed:
            if hashed is split:
                return prints
        self._hashed.append((split, fingerprints(split, **self._reading)))
        return self._hashed[-1][1]

    def _thumbnails(self, split: Split, numbers: NDArray[np.int64]) -> Thumbs:
        different, which = np.unique(numbers, return_inverse=True)
        return thumbnails(split, different, **self._reading), which


@dataclass(frozen=True)
class Candidates:
    """M pairs of images with similar hashes.

    Attributes:
        rows: (M,) int64, of the first split, ascending.
        columns: (M,) int64, of the second split.
        distances: (M,) int64, bits.
        mirrored: (M,) bool.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    distances: NDArray[np.int64]
    mirrored: NDArray[np.bool_]


def candidates(
    first: Fingerprints, second: Fingerprints, max_distance: int, within: bool = False
) -> Candidates:
    """Return the pairs of usable images whose hashes differ in at most ``max_distance`` bits.

    Of each image of ``first`` the `NEAREST`, and among equals those first in ``second``; with
    ``within``, where both are of one split, only those that come before it.
    """
    places, others = np.flatnonzero(first.usable), np.flatnonzero(second.usable)
    found = [np.zeros((0, 4), dtype=np.int64)]
    for mirrored, hashes in enumerate((first.hashes, first.mirrored)):
        for near in _near(hashes[places], second.hashes[others], max_distance, within):
            rows, distances, columns = near.T
            kind = np.full(len(near), mirrored)
            found.append(np.stack([places[rows], distances, others[columns], kind], axis=1))
    rows, distances, columns, mirrors = _nearest(np.concatenate(found)).T
    return Candidates(rows, columns, distances, mirrors == 1)


def _nearest(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (row, distance, column, …) sorted, the first `NEAREST` of each row."""
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    starts = np.searchsorted(pairs[:, 0], pairs[:, 0])
    return pairs[np.arange(len(pairs)) - starts < NEAREST]


def _near(
    hashes: NDArray[np.uint64], pool: NDArray[np.uint64], radius: int, within: bool
) -> Iterator[NDArray[np.int64]]:
    """Yield (row, distance, column) of the `_nearest` pairs within ``radius`` bits, (n, 3).

    Exact: every pair is counted, 1.5 billion a second and processor (AVX-512).
    """

    def part(start: int) -> NDArray[np.int64]:
        queries = hashes[start : start + _ROWS, None]
        end = start + len(queries) if within else len(pool)
        found = [np.zeros((0, 3), dtype=np.int64)]
        for left in range(0, end, _COLUMNS):
            bits = np.bitwise_count(queries ^ pool[None, left : min(end, left + _COLUMNS)])
            close = bits <= radius
            if not close.any():  # as nearly always, and told in a fraction of the time
                continue
            rows, columns = close.nonzero()
            pairs = np.stack([rows + start, bits[rows, columns], columns + left], axis=1)
            found.append(pairs[pairs[:, 2] < pairs[:, 0]] if within else pairs)
        return _nearest(np.concatenate(found))

    with ThreadPoolExecutor(rank_processors(1)) as threads:  # NumPy lets go of Python's lock
        yield from threads.map(part, range(0, len(hashes), _ROWS))


def _similarity(pairs: Candidates, first: Thumbs, second: Thumbs) -> NDArray[np.float32]:
    """Return (M,) the correlation of the details of each pair, 0 where one shows nothing."""
    parts = [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(pairs.rows), _COLUMNS):
        block = slice(start, start + _COLUMNS)
        left, right = (thumbs[which[block]] for thumbs, which in (first, second))
        flip = pairs.mirrored[block]
        left[flip] = left[flip, :, ::-1]
        parts.append((_normalized(left) * _normalized(right)).sum(axis=(1, 2)))
    return np.concatenate(parts)


def _normalized(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the details with mean 0 and norm 1, all 0 where there are none."""
    shapes = detail(thumbs)
    shapes -= shapes.mean(axis=(1, 2), keepdims=True)
    norms = np.linalg.norm(shapes, axis=(1, 2), keepdims=True)
    least = FLAT * thumbs[0].size ** 0.5
    return np.where(norms >= least, shapes / np.maximum(norms, least), 0).astype(np.float32)


def _best(
    pairs: Candidates, similar: NDArray[np.float32], min_similarity: float
) -> list[Duplicate]:
    """Return the most similar pair of each row among those that are similar enough."""
    order = np.argsort(-similar, kind="stable")
    order = order[similar[order] >= min_similarity]
    _, firsts = np.unique(pairs.rows[order], return_index=True)
    # A twin that matches both ways, as it is and mirrored, counts once.
    different = np.unique(np.stack([pairs.rows[order], pairs.columns[order]]), axis=1)
    copies = dict(zip(*np.unique(different[0], return_counts=True), strict=True))
    return [
        Duplicate(
            index=int(pairs.rows[pair]),
            twin=int(pairs.columns[pair]),
            distance=int(pairs.distances[pair]),
            similarity=float(similar[pair]),
            mirrored=bool(pairs.mirrored[pair]),
            copies=int(copies[pairs.rows[pair]]),
        )
        for pair in order[np.sort(firsts)]
    ]
