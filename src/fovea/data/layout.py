"""How folders of images are laid out: splits, classes, the files of a class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fovea.data.images import IMAGE_SUFFIXES
from fovea.errors import FoveaError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

_IGNORED = {"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found"}

_NUMBER = re.compile("[0-9]+")


def natural_key(name: str) -> str:
    """Return a sort key in which runs of digits count as numbers: "2" < "10", "a2" < "a10".

    One string, which sorts several times faster than a tuple of the name's parts. In it a number is
    its length and its digits behind a NUL, which no file name holds and which sorts before all
    text. Of equal numbers, as in "1" and "01", the name itself decides at the end.
    """
    return f"{_NUMBER.sub(_sortable, name)}\0\0{name}"


def _sortable(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0")
    return f"\0{chr(1 + len(digits))}{digits}"


def sorted_classes(names: Iterable[str]) -> list[str]:
    """Return class names in label order: by number if all are integers, else naturally."""
    names = set(names)
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names, key=natural_key)


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of ``folder`` that are not hidden or the file manager's, sorted."""
    with os.scandir(folder) as entries:
        kept = [e for e in entries if not e.name.startswith(".") and e.name not in _IGNORED]
    return sorted(kept, key=lambda entry: natural_key(entry.name))


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, sorted naturally."""
    return [entry.name for entry in visible(folder) if entry.is_dir()]


def is_image(name: str) -> bool:
    """Return whether the suffix of a file that is not hidden is an image's."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def split_folders(root: Path) -> dict[str, str]:
    """Return the folder of each split that ``root`` has, by the split's name.

    ``valid`` and ``validation`` are val, whatever the case.

    Raises:
        FoveaError: for two folders of one split.
    """
    found: dict[str, str] = {}
    for folder in subfolders(root):
        for split, names in SPLIT_NAMES.items():
            if folder.lower() not in names:
                continue
            if split in found:
                raise FoveaError(
                    f"{root} has two {split} splits, {found[split]}/ and {folder}/: keep one."
                )
            found[split] = folder
    return found


class Walk(NamedTuple):
    """What lies at any depth below a folder.

    Attributes:
        images: paths relative to the folder, sorted naturally.
        others: files whose suffix is no image's, likewise.
        stamps: of each folder on the way (`folder_stamp`), by its relative path, "" for the first.
    """

    images: list[str]
    others: list[str]
    stamps: dict[str, list[int]]


def walk_images(folder: Path) -> Walk:
    """Return the images at any depth below ``folder``; links to folders are followed."""
    walk = Walk([], [], {})
    _walk(folder, "", walk)
    return walk


def _walk(folder: Path, prefix: str, walk: Walk) -> None:
    # Before the entries are read, so that one which comes meanwhile makes the stamp an old one.
    walk.stamps[prefix.rstrip("/")] = folder_stamp(folder)
    for entry in visible(folder):
        name = prefix + entry.name
        if entry.is_dir():
            _walk(folder / entry.name, f"{name}/", walk)
        elif is_image(entry.name):
            walk.images.append(name)
        else:
            walk.others.append(name)


def folder_stamp(folder: str | os.PathLike[str]) -> list[int]:
    """Return what changes when an entry of ``folder`` is added, removed or renamed.

    Times of the last change in nanoseconds, of the entries and of anything (which `tar` and
    `rsync` cannot set back), and the inode, another one where a folder took the place of another.
    """
    status = os.stat(folder)
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def shortened(names: Iterable[str], most: int = 5) -> str:
    """Return the first ``most`` names with commas, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
