"""The files that `benchmark_input.py` reads: the same for every way of reading them."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fovea.errors import FoveaError

ORIGINAL, SMALL = "original", "small"
"""Parts of the benchmark: the files as they are; images of 32 pixels in memory. Any other part is
the longest side in pixels of copies that were shrunk and stored."""

TRAIN, EVAL = VIEWS = "train", "eval"

QUALITY = 90
SMALL_SIZE = 32
SMALL_COUNT, SMALL_CLASSES = 50_000, 10  # of CIFAR-10

_SUFFIXES = {".jpg", ".jpeg"}
_MODES = {"RGB", "L"}  # CMYK is read by few of the ways
_SYNTHETIC_SIZE = (500, 375)  # the median of ImageNet


@dataclass(frozen=True)
class Job:
    """What one run of the benchmark is to read, and how.

    Attributes:
        way: see `input_ways.WAYS`.
        part: ``original``, a longest side in pixels, or ``small``.
        view: ``train`` or ``eval``.
        workers: processes or threads that load; 0 loads in the process itself.
        batch_size: images.
        seconds: that are measured.
        folder: of the benchmark's files, see `images` and `packed`.
    """

    way: str
    part: str
    view: str
    workers: int
    batch_size: int
    seconds: float
    folder: str

    @property
    def training(self) -> bool:
        """Whether the view is that of training."""
        return self.view == TRAIN

    @property
    def max_size(self) -> int | None:
        """The longest side in pixels of what is stored; None for the files as they are."""
        return int(self.part) if self.part.isdecimal() else None

    @property
    def images(self) -> Path:
        """The folder with the part's ``train/<class>/*.jpg``."""
        return Path(self.folder, self.part)

    @property
    def originals(self) -> Path:
        """The folder with ``train/<class>/*.jpg`` as they are."""
        return Path(self.folder, ORIGINAL)

    @property
    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (N, 32, 32, 3) and labels (N,) of the part ``small``."""
        names = ("images.npy", "labels.npy")
        images, labels = (np.load(self.images / name, allow_pickle=False) for name in names)
        return images, labels

    @property
    def packed(self) -> Path:
        """The file or folder that a way makes for itself."""
        return Path(self.folder, f"packed-{self.way}-{self.part}")


def find_jpegs(root: Path) -> list[Path]:
    """Return all JPEGs below the class folders of ``root/train``, or of ``root``; sorted."""
    root = root / "train" if (root / "train").is_dir() else root
    found = sorted(
        path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.parent != root
    )
    if not found:
        raise FoveaError(
            f"No JPEGs in {root}/<class>/ (--root). Point at a folder of class folders, or make "
            "images up: --synthetic 400"
        )
    return found


def link_images(root: Path, target: Path, count: int) -> list[str]:
    """Put ``count`` JPEGs of ``root`` into ``target/train/<class>/``; return what there is.

    Evenly chosen, and under several names where there are fewer: all ways then have epochs of the
    same length, and none reaches its end oftener than in training on a large set. Left out is what
    is neither RGB nor grey.
    """
    found = find_jpegs(root)
    chosen = found[:: max(1, len(found) // count)][:count]
    sizes = {path: Image.open(path).size for path in chosen if Image.open(path).mode in _MODES}
    if not sizes:
        raise FoveaError(f"No JPEG of {root} is RGB or grey. Point --root at other images.")
    for number in range(count):
        path = list(sizes)[number % len(sizes)]
        folder = target / "train" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        link(path, folder / f"{number:06}_{path.stem}.jpg")
    width, height = (median(size[axis] for size in sizes.values()) for axis in (0, 1))
    kilobytes = median(path.stat().st_size for path in sizes) / 1000
    return [
        f"{len(sizes)} JPEGs of {len(found)} in {root}"
        + (f", {len(chosen) - len(sizes)} left out: CMYK" if len(chosen) > len(sizes) else ""),
        f"median {width:.0f} x {height:.0f} pixels, {kilobytes:.0f} kB; {count} an epoch",
    ]


def link(path: Path, to: Path) -> None:
    """Make ``to`` the same file as ``path``, or a copy where they lie on different disks."""
    try:
        os.link(path.resolve(), to)
    except OSError:
        shutil.copyfile(path, to)


def make_photographs(folder: Path, count: int) -> None:
    """Make ``count`` JPEGs of noise at all scales, about as large as photographs, in 10 classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = np.full((*_SYNTHETIC_SIZE[::-1], 3), 128.0)
        for octave in range(1, 9):
            coarse = random.normal(128, 128, (2**octave, 2**octave, 3)).clip(0, 255)
            scaled = Image.fromarray(coarse.astype(np.uint8)).resize(_SYNTHETIC_SIZE)
            pixels += (np.asarray(scaled, float) - 128) / octave
        target = folder / str(number % 10) / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, quality=95)


def shrink_images(source: Path, target: Path, max_size: int) -> None:
    """Store the images of the tree ``source`` with sides of at most ``max_size``, as JPEGs."""
    done: dict[int, Path] = {}  # one file under several names is shrunk once
    for path in sorted(source.rglob("*.jpg")):
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        number = path.stat().st_ino
        if number in done:
            link(done[number], to)
            continue
        image = Image.open(path)
        image.thumbnail((max_size, max_size), Image.Resampling.BILINEAR)
        image.save(to, "JPEG", quality=QUALITY)
        done[number] = to


def make_small(target: Path, root: Path | None) -> list[str]:
    """Write the arrays of the part ``small``; return what they hold.

    Args:
        target: folder, see `Job.arrays`.
        root: folder with ``train/<class>/*.jpg`` of 32 x 32 pixels; None for noise.
    """
    target.mkdir(parents=True)
    if root is None:
        random = np.random.default_rng(0)
        shape = (SMALL_COUNT, SMALL_SIZE, SMALL_SIZE, 3)
        images = random.integers(0, 256, shape, dtype=np.uint8)
        labels = np.arange(SMALL_COUNT) % SMALL_CLASSES
    else:
        found = find_jpegs(root)
        classes = sorted({path.parent.name for path in found})
        pictures = [Image.open(path).convert("RGB") for path in found]
        if {picture.size for picture in pictures} != {(SMALL_SIZE, SMALL_SIZE)}:
            raise FoveaError(f"The images of {root} (--small) are not all of {SMALL_SIZE} pixels")
        images = np.stack([np.asarray(picture) for picture in pictures])
        labels = np.array([classes.index(path.parent.name) for path in found])
    np.save(target / "images.npy", images)
    np.save(target / "labels.npy", labels)
    return [f"{len(images)} images of 32 x 32 pixels: {root or 'noise, in CIFAR-10 format'}"]


def kilobytes_an_image(packed: Path, count: int) -> float:
    """Return the size of a file, or of all files of a folder, for each of ``count`` images."""
    files = [packed] if packed.is_file() else [path for path in packed.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / count / 1000
