"""The images below class folders, listed once: a compact index, kept and used again.

The index of each folder of class folders is a file in `cache_folder`, which may be deleted at any
time. It is used as long as every folder that was listed bears the stamp it had then: files and
folders that are added, removed or renamed at any depth change it. Not noticed, and not the list's
business, is other content: a file written anew in place, another file behind a link. Object stores
mounted as folders may have no such times: go without the index there, by an empty ``FOVEA_CACHE=``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fovea.data.layout import folder_stamp, shortened, sorted_classes, walk_images
from fovea.data.storage import patiently

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the index files; those of another are made anew."""

SMALLEST_KEPT = 20_000
"""Fewer images are listed in no time, so small folders leave no file behind."""

SETTLED = 2.0
"""Seconds since the last change of any folder before an index is kept: a change right after the
listing could leave the same time on the folder, of file systems that count time coarsely."""

# Listing waits for the disk or the network, so more threads than processors pay.
_THREADS = 16


class ClassFolder(NamedTuple):
    """What one class folder holds, at any depth.

    Attributes:
        name: of the folder.
        images: how many.
        groups: the folders right below it, named for a message, where all its images lie in
            several; else "".
        others: how many files have no image suffix.
        first_others: the first of these, named for a message.
    """

    name: str
    images: int
    groups: str
    others: int
    first_others: str


@dataclass(frozen=True)
class Index:
    """All images below some class folders.

    Attributes:
        classes: the class folders, in the order asked for.
        paths: (N,) bytes of a fixed width, class by class, sorted naturally within; with the prefix
            and the class folder in front.
        stamps: see `folder_stamp`, of each folder that was read, by path below the class folders'.
    """

    classes: list[ClassFolder]
    paths: NDArray[np.bytes_]
    stamps: dict[str, list[int]]


def cache_folder() -> Path | None:
    """Return where indexes are kept; None: nowhere.

    The environment's ``FOVEA_CACHE`` (empty: nowhere), else ``$XDG_CACHE_HOME/fovea``, else
    ``~/.cache/fovea``.
    """
    given = os.environ.get("FOVEA_CACHE")
    if given == "":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(given or f"{base}/fovea").expanduser().absolute()
    except RuntimeError:  # a user without a home
        return None


def write_whole(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Have ``write`` fill ``file``, which is there whole or not at all; its folder is made.

    Several processes may write the same file at the same time.

    Raises:
        OSError: it can't be written.
    """
    part = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as stream:
            write(stream)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def list_images(root: Path, prefix: str, classes: Sequence[str]) -> Index:
    """Return the images below class folders, from a kept index where nothing has changed since.

    Every process may call it, at the same time.

    Args:
        root: that the paths are relative to.
        prefix: of the class folders, "" or such as ``train/``.
        classes: the class folders, which exist.
    """
    cache = cache_folder()
    if cache is None:
        return _list(root, prefix, classes)
    name = hashlib.sha256(os.fsencode(f"{root}\0{prefix}")).hexdigest()[:32]
    file = cache / f"index-{name}.npz"
    kept = _read(file, root / prefix, classes)
    if kept is not None:
        return kept
    began = time.time()
    index = _list(root, prefix, classes)
    newest = max((max(mtime, ctime) for mtime, ctime, _ in index.stamps.values()), default=0)
    if len(index.paths) >= SMALLEST_KEPT and newest < (began - SETTLED) * 1e9:
        _write(file, index)
    return index


def _list(root: Path, prefix: str, classes: Sequence[str]) -> Index:
    with ThreadPoolExecutor(_THREADS) as threads:
        listed = list(
            tqdm(
                threads.map(partial(_list_class, root, prefix), classes),
                total=len(classes),
                desc="listing images",
                unit="folder",
                delay=2,
                disable=None,
            )
        )
    paths = np.concatenate([np.array([], dtype=np.bytes_), *(part.paths for part in listed)])
    return Index(
        [name for part in listed for name in part.classes],
        paths,
        {name: stamp for part in listed for name, stamp in part.stamps.items()},
    )


def _list_class(root: Path, prefix: str, name: str) -> Index:
    folder = root / prefix / name
    images, others, stamps = patiently(partial(walk_images, folder), folder)
    groups = {image.partition("/")[0] for image in images if "/" in image}
    nested = len(groups) > 1 and all("/" in image for image in images)
    facts = ClassFolder(
        name,
        len(images),
        shortened(sorted_classes(groups)) if nested else "",
        len(others),
        shortened(others),
    )
    paths = [os.fsencode(f"{prefix}{name}/{image}") for image in images]
    return Index(
        [facts],
        np.array(paths, dtype=np.bytes_),
        {f"{name}/{folder}": stamp for folder, stamp in stamps.items()},
    )


def _read(file: Path, folder: Path, classes: Sequence[str]) -> Index | None:
    """Return the index in ``file`` if it is one of these classes as they are now."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT:
                return None
            listed = [ClassFolder(*facts) for facts in header["classes"]]
            same = [facts.name for facts in listed] == list(classes)
            if same and _stamps(folder, header["stamps"]) == header["stamps"]:
                return Index(listed, arrays["paths"], header["stamps"])
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged archive raises anything
        logger.debug("cannot use the index %s: %s", file, error)
        return None
    logger.info("%s has changed since it was listed: listing it anew", folder)
    _remove(file)
    return None


def _stamps(folder: Path, names: Sequence[str]) -> dict[str, list[int] | None]:
    def stamp(name: str) -> list[int] | None:
        try:
            return folder_stamp(os.path.join(folder, name))
        except OSError:  # gone
            return None

    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(names, threads.map(stamp, names), strict=True))


def _write(file: Path, index: Index) -> None:
    """Keep ``index``, whole or not at all; where that cannot be, go on without."""
    header = {"format": FORMAT, "classes": index.classes, "stamps": index.stamps}

    def write(stream: BinaryIO) -> None:
        text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        np.savez(stream, header=text, paths=index.paths)

    try:
        write_whole(file, write)
    except OSError as error:
        logger.debug("the index is not kept: %s", error)


def _remove(file: Path) -> None:
    # Or else it would be found changed again at each start, where the new one is not kept.
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("cannot remove the index %s: %s", file, error)
