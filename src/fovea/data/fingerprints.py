"""What an image looks like, in 64 bits: perceptual hashes of a split, kept and used again.

The hash is ImageHash's ``phash``: the signs of the lowest 8 x 8 frequencies of the image, shrunk to
32 x 32 grey pixels, against their median. Images that look alike differ in few bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as tvf
from tqdm import tqdm

from fovea.data.dataset import begin_worker
from fovea.data.decoding import KEPT_REDUCTION, SCALES, Decode, Picture
from fovea.data.hash_cache import HashCache
from fovea.data.images import UnreadableImage, to_channels
from fovea.data.splits import Split

SIDE = 32
"""Pixels of a thumbnail's side: what ``phash`` shrinks an image to."""

DETAIL = 2.0
"""Standard deviation in pixels of the blur that is taken off a thumbnail: what is left are its
shapes. Many photographs share a bright sky above a dark ground, few share these."""

FLAT = 1.0
"""Standard deviation of the detail in grey levels, of 255. Below it are blank images, whose hash is
noise, and which all look alike."""

SMALLEST = 16
"""Pixels of the shorter side. Smaller images say too little: three in five of scikit-learn's
digits, 8 x 8 pixels, would have a twin."""

SMALLEST_FOR_WORKERS = 1000
"""Fewer images are read sooner than worker processes start."""

_BATCH = 64
_UNREADABLE, _BLANK, _USABLE = 0, 1, 2


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of the N images of a split, in its order.

    Attributes:
        hashes: (N,) uint64.
        mirrored: (N,) uint64, of the images flipped left to right.
        usable: (N,) bool; False for images that can't be read, are `FLAT` or below `SMALLEST`.
        unreadable: how many can't be read.
    """

    hashes: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]
    usable: NDArray[np.bool_]
    unreadable: int


def fingerprints(split: Split, workers: int = 0, decode: Decode = "auto") -> Fingerprints:
    """Return the hashes of all images of ``split``, those kept where the files are the same.

    Args:
        split: files, shards or images in memory.
        workers: processes that read and hash; 0: this one.
        decode: see `fovea.data.decoding.open_picture`.
    """
    cache = HashCache(split)
    rows, known = cache.read()
    missing, done = np.flatnonzero(~known), 0
    try:
        for part in _each(_Hashes(split, missing, decode), workers, "hashing images"):
            rows[missing[done : done + len(part)]] = part
            done += len(part)
    finally:  # cut short, what was hashed is kept as well
        new = missing[:done]
        cache.add(new[rows[new, 2] != _UNREADABLE], rows)
    state = rows[:, 2]
    return Fingerprints(rows[:, 0], rows[:, 1], state == _USABLE, int((state == _UNREADABLE).sum()))


def thumbnails(
    split: Split, numbers: NDArray[np.int64], workers: int = 0, decode: Decode = "auto"
) -> NDArray[np.uint8]:
    """Return the samples ``numbers`` (n,) of ``split`` in grey, (n, SIDE, SIDE).

    Zeros for one that can't be read. Args otherwise as for `fingerprints`.
    """
    parts = list(_each(_Thumbnails(split, numbers, decode), workers, "comparing images"))
    return np.concatenate([np.zeros((0, SIDE, SIDE), dtype=np.uint8), *parts])


def detail(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a blur of `DETAIL` pixels takes off thumbnails (n, SIDE, SIDE)."""
    grey = thumbs.astype(np.float32)
    difference: NDArray[np.float32] = grey - gaussian_filter(grey, (0, DETAIL, DETAIL))
    return difference


# Reading and hashing, in worker processes.


class _Thumbnails(Dataset[NDArray[np.uint8]]):
    """Thumbnails of some samples of a split."""

    def __init__(self, split: Split, numbers: NDArray[np.int64], decode: Decode) -> None:
        self.source = split.source
        self.numbers = split.numbers.numpy()[numbers]
        self.decode: Decode = "auto" if decode == "gpu" else decode

    def __len__(self) -> int:
        return len(self.numbers)

    def thumbnail(self, row: int) -> NDArray[np.uint8] | None:
        """Return (SIDE, SIDE), black for an image that is too small; None for an unreadable one."""
        try:
            picture = self.source.open(int(self.numbers[row]), 3, self.decode)
            if min(picture.height, picture.width) < SMALLEST:
                return np.zeros((SIDE, SIDE), dtype=np.uint8)
            return _thumbnail(picture)
        except UnreadableImage:
            return None

    def __getitems__(self, rows: list[int]) -> NDArray[np.uint8]:
        blank = np.zeros((SIDE, SIDE), dtype=np.uint8)
        thumbs = [self.thumbnail(row) for row in rows]
        return np.stack([blank if thumb is None else thumb for thumb in thumbs])


class _Hashes(_Thumbnails):
    """Hashes of some samples of a split: (n, 3) uint64."""

    def __getitems__(self, rows: list[int]) -> NDArray[np.uint64]:  # type: ignore[override]
        return np.array([_hash_row(self.thumbnail(row)) for row in rows], dtype=np.uint64)


def _hash_row(thumb: NDArray[np.uint8] | None) -> tuple[int, int, int]:
    if thumb is None:
        return 0, 0, _UNREADABLE
    state = _USABLE if detail(thumb[None]).std() >= FLAT else _BLANK
    return _phash(thumb), _phash(thumb[:, ::-1]), state


def _phash(thumb: NDArray[np.uint8]) -> int:
    bits = imagehash.phash(Image.fromarray(thumb)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _thumbnail(picture: Picture) -> NDArray[np.uint8]:
    """Return the whole picture in SIDE x SIDE grey pixels, antialiased."""
    height, width = picture.height, picture.width
    if min(height, width) >= min(SCALES) * KEPT_REDUCTION * SIDE:
        # Without its last rows, up to three, it can be decoded at a reduced scale.
        height, width = height - height % max(SCALES), width - width % max(SCALES)
    pixels = picture.region(0, 0, height, width, (SIDE, SIDE))
    small: NDArray[np.uint8] = to_channels(tvf.resize_image(pixels, [SIDE, SIDE]), 1)[0].numpy()
    return small


def _each(samples: _Thumbnails, workers: int, what: str) -> Iterator[NDArray[np.generic]]:
    """Yield the batches of ``samples`` in order."""
    loader = DataLoader(
        samples,
        batch_size=_BATCH,
        num_workers=workers if len(samples) >= SMALLEST_FOR_WORKERS else 0,
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # see __getitems__
        worker_init_fn=begin_worker,
    )
    with tqdm(total=len(samples), desc=what, unit="image", delay=2, disable=None) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch))


def _as_it_is(batch: NDArray[np.generic]) -> NDArray[np.generic]:
    return batch
