"""Read every file once, in parallel, and name what is wrong or odd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from fovea.data.images import MAX_ASPECT, UnreadableImage, decode_bytes, open_image
from fovea.data.sources import EncodedSource, FileSource
from fovea.data.splits import Split

SMALLEST_SIDE = 4

_FORMAT_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "PNG": {".png", ".apng"},
    "BMP": {".bmp"},
    "DIB": {".bmp"},
    "GIF": {".gif"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
}


class BadImage(NamedTuple):
    """One finding.

    Attributes:
        path: of the file.
        reason: what is wrong or odd.
        split: where the file is used.
        readable: False when the file cannot be decoded at all.
    """

    path: str
    reason: str
    split: str
    readable: bool


class _File(NamedTuple):
    split: str
    label: int
    source: EncodedSource
    number: int

    @property
    def path(self) -> str:
        return self.source.path(self.number)

    @property
    def suffix(self) -> str:
        """What the name promises; "" for an image in a shard, which may have been encoded anew."""
        return Path(self.path).suffix.lower() if isinstance(self.source, FileSource) else ""


class _Seen(NamedTuple):
    file: _File
    digest: str
    error: str | None
    oddities: list[str]


def check_files(
    splits: dict[str, Split], class_names: list[str], num_workers: int
) -> list[BadImage]:
    """Return what is wrong or odd in the files of all splits, in the order of the splits.

    Wrong: cannot be decoded. Odd: a suffix of another format, several frames, 16 bits, a side below
    4 pixels, a very long shape, and the same file content under two labels or in two splits.

    Args:
        splits: by name. Images held in memory are passed over.
        class_names: in label order, for messages.
        num_workers: threads; decoding releases Python's lock.
    """
    files = list(_files(splits))
    if not files:
        return []
    with ThreadPoolExecutor(max_workers=max(1, num_workers)) as threads:
        seen = list(
            tqdm(
                threads.map(_inspect, files),
                total=len(files),
                desc="checking images",
                unit="file",
                disable=None,
            )
        )
    return [*_faults(seen), *_duplicates(seen, class_names)]


def count_files(splits: dict[str, Split]) -> int:
    """Return how many files `check_files` reads: those of images that are not held in memory."""
    return sum(len(split) for split in splits.values() if isinstance(split.source, EncodedSource))


def _files(splits: dict[str, Split]) -> Iterable[_File]:
    for name, split in splits.items():
        if not isinstance(split.source, EncodedSource):
            continue
        for number, label in zip(split.numbers.tolist(), split.labels.tolist(), strict=True):
            yield _File(name, label, split.source, number)


def _inspect(file: _File) -> _Seen:
    digest = ""
    try:
        data = file.source.encoded(file.number)
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        decode_bytes(data, file.path)
    except UnreadableImage as error:
        return _Seen(file, digest, error.reason, [])
    with open_image(data) as image:
        return _Seen(file, digest, None, _oddities(image, file.suffix))


def _oddities(image: Image.Image, suffix: str) -> list[str]:
    found = []
    if suffix and suffix not in _FORMAT_SUFFIXES.get(image.format or "", {suffix}):
        found.append(f"is {image.format}, not what its suffix {suffix} says (read all the same)")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        found.append(f"has {frames} frames: the first is used")
    if image.mode.startswith("I"):
        found.append("has 16 bits a pixel: the high byte is used")
    short, long = sorted(image.size)
    if short < SMALLEST_SIDE:
        found.append(f"is only {image.width}x{image.height} pixels")
    elif long > MAX_ASPECT * short:
        found.append(f"is {image.width}x{image.height} pixels: evaluation sees only its middle")
    return found


def _faults(seen: list[_Seen]) -> Iterable[BadImage]:
    for file, _, error, oddities in seen:
        if error is not None:
            yield BadImage(file.path, error, file.split, readable=False)
        for oddity in oddities:
            yield BadImage(file.path, oddity, file.split, readable=True)


def _duplicates(seen: list[_Seen], class_names: list[str]) -> Iterable[BadImage]:
    first: dict[str, _File] = {}
    for file, digest, error, _ in seen:
        if error is not None:
            continue
        twin = first.setdefault(digest, file)
        if twin.label != file.label:
            labels = f"{class_names[twin.label]} there, {class_names[file.label]} here"
            yield BadImage(
                file.path, f"is the same file as {twin.path} ({labels})", file.split, readable=True
            )
        elif twin.split != file.split:
            reason = f"is the same file as {twin.path} of the {twin.split} split"
            yield BadImage(file.path, reason, file.split, readable=True)
