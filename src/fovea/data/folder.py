"""Image folders: divided trees, flat trees, and tables of paths and labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fovea.data.index import ClassFolder, list_images
from fovea.data.layout import (
    SPLIT_NAMES,
    is_image,
    shortened,
    sorted_classes,
    split_folders,
    subfolders,
    visible,
)
from fovea.data.module import ImageDataModule
from fovea.data.sources import FileSource, Paths
from fovea.data.splits import Found, Split
from fovea.data.table import TABLE_SUFFIXES, find_table
from fovea.errors import FoveaError
from fovea.types import Preprocessing

logger = logging.getLogger(__name__)

SourceFactory = Callable[[Path, Paths], FileSource]

SMALL_IMAGE = 64


class FolderDataModule(ImageDataModule):
    """Images in folders named after their classes, or listed in a table.

    ``root`` may be

    - ``root/{train,val,test}/<class>/...``; ``valid`` and ``validation`` are val. Without val it is
      cut from train; without test there is none. Without train one can only evaluate.
    - ``root/<class>/...``: val and test are cut.
    - a CSV or TSV file with the columns ``path,label`` and perhaps ``split``, paths relative to the
      table's own folder: without ``split`` val and test are cut.

    Images at any depth below a class folder belong to it. Classes are numbered in natural order of
    their names ("2" before "10"). Large trees are listed once, see `fovea.data.index`.

    Args:
        root: folder or table.
    """

    def __init__(self, root: str, **common: Any) -> None:
        super().__init__(**common)
        self.root = resolve_root(root)

    def _find(self) -> Found:
        if self.root.suffix.lower() in TABLE_SUFFIXES:
            return find_table(self.root)
        if not self.root.is_dir():
            raise FoveaError(
                f"No folder {self.root} (data.root). It should hold train/<class>/*.jpg and "
                "val/<class>/*.jpg, or <class>/*.jpg, or be a CSV of path,label. Point at it by "
                "data.root=/path/to/images"
            )
        return find_tree(self.root)

    def _default_preprocessing(self) -> Preprocessing:
        size = self.choice.image_size or 224
        # The customary 256 for 224; nothing to spare at the edge of small images.
        return Preprocessing(size, resize=round(size / 0.875) if size > SMALL_IMAGE else size)


def resolve_root(root: str) -> Path:
    """Return ``root`` as an absolute path, ``~`` expanded."""
    return Path(root).expanduser().absolute()


def find_tree(
    root: Path, source: SourceFactory = FileSource, classes: Sequence[str] | None = None
) -> Found:
    """Return the splits of a folder tree, divided or flat.

    Args:
        root: that exists.
        source: makes the pool of a split's images from its folder and relative paths.
        classes: the folder names that count, in label order. None: all, in natural order.

    Raises:
        FoveaError: no images, classes that differ between splits.
    """
    folders = split_folders(root)
    if not folders:
        _check_depth(root)
        split, names = _read_split(root, root, source, classes)
        return Found(names, {"train": split}, undivided=True, layout=f"folder {root}, undivided")
    ignored = [name for name in subfolders(root) if name not in folders.values()]
    if ignored:
        logger.warning("left out, being no split: %s in %s", shortened(ignored), root)
    return _find_divided(root, folders, source, classes)


def _find_divided(
    root: Path, folders: dict[str, str], source: SourceFactory, classes: Sequence[str] | None
) -> Found:
    first, *others = [split for split in SPLIT_NAMES if split in folders]
    first_folder = root / folders[first]
    read, names = _read_split(first_folder, root, source, classes)
    splits = {first: read}
    for split in others:
        folder = root / folders[split]
        _check_classes(folder, first_folder, given=classes)
        splits[split], _ = _read_split(folder, root, source, names, may_be_empty=True)
    there = ", ".join(f"{folder}/" for folder in folders.values())
    missing = {
        "train": f"{root} has {there} but no train/. To train, add train/<class>/*.jpg, or name a "
        "folder of class folders in data.root to have it split for you.",
        "val": f"{root} has {there} and no train/ to cut a val split from. Evaluate on another "
        "split by split=test, or add val/<class>/*.jpg.",
        "test": f"{root} has no test/ folder, and a divided data set is not divided further. "
        "Evaluate on another split by split=val, or add test/<class>/*.jpg.",
    }
    return Found(names, splits, False, f"folder {root}", missing)


def _read_split(
    folder: Path,
    root: Path,
    source: SourceFactory,
    classes: Sequence[str] | None,
    may_be_empty: bool = False,
) -> tuple[Split, list[str]]:
    """Return the images below the class folders of ``folder``, and the classes."""
    there = subfolders(folder)
    _warn_unlabelled(folder, there)
    names = list(classes) if classes is not None else sorted_classes(there)
    prefix = "" if folder == root else f"{folder.name}/"
    present = set(there)
    index = list_images(root, prefix, [name for name in names if name in present])
    counts = {found.name: found.images for found in index.classes}
    for found in index.classes:
        _warn_of_class(folder / found.name, found)
    empty = [name for name, count in counts.items() if not count]
    if empty and not may_be_empty:
        raise FoveaError(
            f"No images in class folder(s) {shortened(empty)} of {folder}. Remove the folder(s), "
            "or add images with a suffix such as .jpg or .png."
        )
    if empty:
        logger.warning("no images of class(es) %s in %s", shortened(empty), folder)
    repeats = torch.tensor([counts.get(name, 0) for name in names])
    labels = torch.arange(len(names)).repeat_interleave(repeats)
    return Split.whole(source(root, index.paths), labels), names


def _check_depth(root: Path) -> None:
    """Raise where ``root`` is not the folder of class folders but one beside or above it."""
    there = subfolders(root)
    for name in there:
        if len(there) == 1 and "train" in split_folders(root / name):
            raise FoveaError(
                f"{root} holds only {name}/, which has the splits: data.root={root / name}"
            )
    if not there:
        files = [entry.name for entry in visible(root)]
        held = f"only files ({shortened(files, 3)})" if files else "nothing"
        raise FoveaError(
            f"{root} (data.root) holds {held}: images belong into one folder a class, as in "
            f"{root / '<class>' / 'image.jpg'}; or list them in a CSV of path,label and give "
            "its path as data.root"
        )


def _warn_unlabelled(folder: Path, classes: list[str]) -> None:
    files = [entry.name for entry in visible(folder) if not entry.is_dir() and is_image(entry.name)]
    if not classes:
        raise FoveaError(
            f"{folder} has no class folders"
            + (f", only files such as {files[0]}" if files else "")
            + ". Sort its images into one folder a class, named as in train. (ImageNet's official "
            "val archive is flat: scripts/prepare_imagenet.py sorts it.)"
        )
    if files:
        logger.warning(
            "%d image(s) beside the class folders of %s have no label and are left out: %s",
            len(files),
            folder,
            shortened(files),
        )


def _warn_of_class(folder: Path, found: ClassFolder) -> None:
    if found.others:
        logger.warning(
            "%d file(s) in %s have no image suffix and are left out: %s",
            found.others,
            folder,
            found.first_others,
        )
    if found.groups:
        logger.warning(
            "class folder %s has only folders in it (%s): all their images count as class '%s'. If "
            "they are the classes, make them the first level, or list the images in a CSV of "
            "path,label.",
            folder,
            found.groups,
            folder.name,
        )


def _check_classes(folder: Path, train: Path, given: Sequence[str] | None) -> None:
    """Raise unless ``folder`` has the classes of ``train``.

    Where the classes are given, others may lie in ``folder`` and are not used.
    """
    there, trained = set(subfolders(folder)), set(subfolders(train))
    if not there:
        return  # a flat folder, which has its own message
    lacking = sorted_classes(trained - there)
    extra = sorted_classes(there - trained)
    if given is not None:
        unused = sorted_classes(there - set(given))
        if unused:
            logger.warning("class folder(s) of %s not used: %s", folder, shortened(unused))
        extra = []
    if lacking or extra:
        parts = [
            f"missing from {folder}: {shortened(lacking, 10)}" if lacking else "",
            f"not in {train}: {shortened(extra, 10)}" if extra else "",
        ]
        raise FoveaError(
            f"{train} and {folder} do not have the same classes. "
            + "; ".join(part for part in parts if part)
            + ". Rename, add or remove class folders until they agree (an empty one will do)."
        )
