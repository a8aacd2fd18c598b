"""The ILSVRC2012 development kit: which number stands for which class, and the val images' answers.

The kit numbers the classes from 1 by ``ILSVRC2012_ID``, in an order of its own that is not the
sorted wnids' order of a network's outputs. Source: the kit's readme.txt.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from imagenet_archives import PreparationError, member_bytes, opened
from scipy.io import loadmat

DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
DEVKIT_FOLDER = "ILSVRC2012_devkit_t12"
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """What the kit says.

    Attributes:
        wnid_of_id: the classes, by ILSVRC2012_ID.
        truth: the ILSVRC2012_ID of each val image, the first image's first; empty where only the
            classes were given.
    """

    wnid_of_id: dict[int, str]
    truth: list[int] = field(default_factory=list)

    def val_labels(self) -> dict[str, str]:
        """Return the wnid of each val image, by the image's name without suffix."""
        return {
            f"ILSVRC2012_val_{number:08d}": self.wnid_of_id[label]
            for number, label in enumerate(self.truth, start=1)
        }


def read_devkit(place: Path) -> Devkit:
    """Return the devkit at ``place``.

    Args:
        place: the archive; a folder with the archive or the kit in it, or the kit itself; or a text
            file with a line ``<wnid> <ILSVRC2012_ID> <name>`` a class, as the kits of later years
            have it (``map_clsloc.txt``), which brings no ground truth.

    Raises:
        PreparationError: nothing of that kind is there, or it is damaged.
    """
    if place.is_file() and place.suffix == ".txt":
        return Devkit(_text_classes(place))
    archive = place / DEVKIT_ARCHIVE if place.is_dir() else place
    if archive.is_file():
        return archived_devkit(archive)
    for folder in (place, place / DEVKIT_FOLDER):
        if (folder / META).is_file():
            return unpacked_devkit(folder)
    raise PreparationError(
        f"no devkit at {place}: looked for {DEVKIT_ARCHIVE}, {DEVKIT_FOLDER}/{META} and {META}"
    )


def archived_devkit(archive: Path) -> Devkit:
    """Return the devkit as it is distributed."""
    with opened(archive, "r:gz") as tar:
        return _parse(lambda name: member_bytes(tar, f"{DEVKIT_FOLDER}/{name}"))


def unpacked_devkit(folder: Path) -> Devkit:
    """Return the devkit whose ``data`` folder lies in ``folder``."""
    return _parse(lambda name: (folder / name).read_bytes())


def _parse(read: Callable[[str], bytes]) -> Devkit:
    """Return what the kit's two files say.

    ``meta.mat`` lists the synsets; those without children are the classes.
    """
    try:
        meta = loadmat(io.BytesIO(read(META)), squeeze_me=True)
        truth = [int(line) for line in read(TRUTH).split()]
        wnid_of_id = _by_id(
            (int(synset["ILSVRC2012_ID"]), str(synset["WNID"]))
            for synset in meta["synsets"]
            if int(synset["num_children"]) == 0
        )
    except (KeyError, OSError) as error:
        raise PreparationError(f"the devkit is incomplete: {error}") from error
    except ValueError as error:
        raise PreparationError(f"the devkit is damaged: {error}") from error
    strange = sorted(set(truth) - set(wnid_of_id))
    if strange:
        raise PreparationError(f"the devkit is damaged: {META} has no class {strange[0]}")
    return Devkit(wnid_of_id, truth)


def _text_classes(file: Path) -> dict[int, str]:
    rows = [line.split() for line in _text(file).splitlines() if line.strip()]
    if not rows:
        raise PreparationError(f"{file} is empty: expected a line '<wnid> <ILSVRC2012_ID>' a class")
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or not _is_number(row[1]):
            raise PreparationError(
                f"{file}, line {number}: expected '<wnid> <ILSVRC2012_ID> <name>', as in "
                f"'n02119789 1 kit_fox', and found {' '.join(row)!r}"
            )
    return _by_id((int(row[1]), row[0]) for row in rows)


def _by_id(classes: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Return the wnids by ID; raises `PreparationError` if one of either comes twice."""
    found: dict[int, str] = {}
    for number, wnid in classes:
        if number in found:
            raise PreparationError(
                f"the devkit is damaged: {found[number]} and {wnid} have one ILSVRC2012_ID, "
                f"{number}"
            )
        if wnid in found.values():
            raise PreparationError(f"the devkit is damaged: {wnid} is there twice")
        found[number] = wnid
    return found


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal()


def _text(file: Path) -> str:
    """Return what is written in ``file``; raises `PreparationError` if it is no text."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PreparationError(f"{file} is not a text file") from error


def read_truth(file: Path) -> list[int]:
    """Return the numbers in ``file``, one a line.

    Raises:
        PreparationError: the file is missing or no text, or a line is no whole number.
    """
    if not file.is_file():
        raise PreparationError(f"no ground truth at {file}")
    lines = _text(file).split()
    strange = next((line for line in lines if not _is_number(line)), None)
    if strange is not None:
        raise PreparationError(f"{file} is no ground truth: it holds {strange!r}")
    return [int(line) for line in lines]
