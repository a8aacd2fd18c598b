"""How folders of images are laid out: splits, classes, the files of a class."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fovea.data.images import IMAGE_SUFFIXES
from fovea.errors import FoveaError

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

_IGNORED = {"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found"}


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a sort key in which runs of digits count as numbers: "2" < "10", "a2" < "a10"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    key = ((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)
    return tuple(key), name  # between "1" and "01" the name itself decides


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
    """Return whether the suffix is an image's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


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


def walk_images(folder: Path) -> Iterator[str]:
    """Yield the images at any depth below ``folder``, relative to it, sorted naturally.

    Other files are named in a warning.
    """
    others: list[str] = []
    yield from _walk(folder, "", others)
    if others:
        logger.warning(
            "%d file(s) in %s have no image suffix and are left out: %s",
            len(others),
            folder,
            shortened(others),
        )


def _walk(folder: Path, prefix: str, others: list[str]) -> Iterator[str]:
    for entry in visible(folder):
        name = prefix + entry.name
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{name}/", others)
        elif is_image(entry.name):
            yield name
        else:
            others.append(name)


def shortened(names: Iterable[str], most: int = 5) -> str:
    """Return the first ``most`` names with commas, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
