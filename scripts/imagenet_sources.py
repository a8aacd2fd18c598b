"""ILSVRC2012 as people have it: archives, a sorted folder, or Kaggle's layout, found and read."""

from __future__ import annotations

import csv
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from imagenet_archives import (
    PreparationError,
    is_picture,
    is_plain,
    members,
    opened,
)
from imagenet_devkit import DEVKIT_ARCHIVE, DEVKIT_FOLDER, archived_devkit, unpacked_devkit

# Names and sums as published with the challenge; torchvision checks the same (its
# ``datasets/imagenet.py``, ARCHIVE_META).
TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
PUBLISHED_MD5 = {
    TRAIN_ARCHIVE: "1d675b47d978889d74fa0da5fadfb00e",
    VAL_ARCHIVE: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT_ARCHIVE: "fa75699e90414af021442c21a62c3abf",
}
VAL_CSV = "LOC_val_solution.csv"

WNID = re.compile(r"n\d{8}")
_LAYOUTS = ("", "ILSVRC", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")


@dataclass(frozen=True)
class Picture:
    """One image on its way to ``<wnid>/<name>``.

    Attributes:
        wnid: of its class.
        name: of the file.
        size: bytes.
        open: gives its content.
        file: where it is, unless in an archive.
    """

    wnid: str
    name: str
    size: int
    open: Callable[[], IO[bytes]]
    file: Path | None = None


@dataclass(frozen=True)
class Group:
    """Pictures that are done together: a class of train, or all of val.

    Attributes:
        name: unique in the split.
        size: bytes, about.
        packed: in an archive.
        pictures: opens and reads the group's part of the source.
    """

    name: str
    size: int
    packed: bool
    pictures: Callable[[], Iterator[Picture]]


class Source:
    """What of ILSVRC2012 is below a folder.

    Attributes:
        folder: that was searched.
        archives: the official archive files that are there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = [folder / layout for layout in _LAYOUTS if (folder / layout).is_dir()]
        if not self.places:
            raise PreparationError(f"no folder {folder}")
        found = {name: self._find(name) for name in PUBLISHED_MD5}
        self.archives = {name: path for name, path in found.items() if path is not None}

    def _find(self, name: str, above: bool = False) -> Path | None:
        """Return the path of ``name`` in any of the places, or above a CLS-LOC folder."""
        places = [*self.places, *(list(self.folder.parents)[:3] if above else [])]
        return next((place / name for place in places if (place / name).exists()), None)

    def _looked_in(self) -> str:
        return ", ".join(str(place) for place in self.places)

    def groups(self, split: str) -> Iterator[Group]:
        """Yield the groups of ``train`` or ``val``.

        Raises:
            PreparationError: nothing there that has the split; what was looked for, and where.
        """
        archive = self.archives.get(TRAIN_ARCHIVE if split == "train" else VAL_ARCHIVE)
        folder = self._find(split)
        if archive is not None:
            yield from _train_groups(archive) if split == "train" else [self._val_group(archive)]
        elif folder is not None and folder.is_dir():
            yield from self._folder_groups(folder)
        else:
            archive_name = TRAIN_ARCHIVE if split == "train" else VAL_ARCHIVE
            raise PreparationError(
                f"no {split} images: looked for {archive_name} or a folder {split}/ in "
                f"{self._looked_in()}. Put it there, or leave the split out: "
                f"--splits {'val' if split == 'train' else 'train'}"
            )

    def _folder_groups(self, folder: Path) -> Iterator[Group]:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        strange = [name for name in names if not WNID.fullmatch(name)]
        if strange:
            raise PreparationError(f"{folder / strange[0]} is not named like a wnid (n01440764)")
        for wnid in names:
            files = [file for file in sorted((folder / wnid).iterdir()) if is_picture(file.name)]
            size = sum(file.stat().st_size for file in files)
            yield Group(wnid, size, False, partial(_class_pictures, files, wnid))
        flat = sorted(file for file in folder.iterdir() if is_picture(file.name))
        if flat:
            wnid_of = self.val_labels()
            size = sum(file.stat().st_size for file in flat)
            yield Group(
                "flat", size, False, lambda: (_of_file(f, _label(wnid_of, f.name)) for f in flat)
            )

    def _val_group(self, archive: Path) -> Group:
        def pictures() -> Iterator[Picture]:
            wnid_of = self.val_labels()
            with opened(archive) as tar:
                for member in members(tar, archive.name):
                    wnid = _label(wnid_of, member.name)
                    yield _of_member(tar, member, wnid)

        return Group("archive", archive.stat().st_size, True, pictures)

    def val_labels(self) -> dict[str, str]:
        """Return the wnid of each val image, by the image's name without suffix.

        From the devkit if it is there (packed or not), else from Kaggle's CSV.
        """
        archive, folder = self.archives.get(DEVKIT_ARCHIVE), self._find(DEVKIT_FOLDER)
        table = self._find(VAL_CSV, above=True)
        if archive is not None:
            return archived_devkit(archive).val_labels()
        if folder is not None:
            return unpacked_devkit(folder).val_labels()
        if table is not None:
            return _csv_labels(table)
        raise PreparationError(
            "the classes of the val images are not known: looked for "
            f"{DEVKIT_ARCHIVE} and {VAL_CSV} in {self._looked_in()}. Put one of them there."
        )


def _of_file(file: Path, wnid: str) -> Picture:
    return Picture(wnid, file.name, file.stat().st_size, lambda: file.open("rb"), file)


def _class_pictures(files: list[Path], wnid: str) -> Iterator[Picture]:
    return (_of_file(file, wnid) for file in files)


def _of_member(tar: tarfile.TarFile, member: tarfile.TarInfo, wnid: str) -> Picture:
    def open_member() -> IO[bytes]:
        stream = tar.extractfile(member)
        assert stream is not None  # regular files only come here
        return stream

    return Picture(wnid, member.name, member.size, open_member)


def _label(wnid_of: dict[str, str], name: str) -> str:
    wnid = wnid_of.get(name.rpartition(".")[0])
    if wnid is None or not WNID.fullmatch(wnid):
        raise PreparationError(
            f"val image {name} has no class in the devkit or {VAL_CSV}, or one ({wnid}) that is no "
            "wnid (n01440764)"
        )
    return wnid


def _train_groups(archive: Path) -> Iterator[Group]:
    with opened(archive) as tar:
        inner = [member for member in tar if not member.isdir()]
    for member in inner:
        wnid, _, suffix = member.name.removeprefix("./").partition(".")
        if not (is_plain(member) and WNID.fullmatch(wnid) and suffix == "tar"):
            raise PreparationError(f"refused: {archive.name} holds {member.name!r}, not <wnid>.tar")
        pictures = partial(_train_pictures, archive, member, wnid)
        yield Group(wnid, member.size, True, pictures)


def _train_pictures(archive: Path, member: tarfile.TarInfo, wnid: str) -> Iterator[Picture]:
    name = f"{member.name} in {archive}"
    with opened(archive) as outer, opened(name, file=outer.extractfile(member)) as tar:
        for image in members(tar, f"{archive.name}/{member.name}"):
            yield _of_member(tar, image, wnid)


def _csv_labels(table: Path) -> dict[str, str]:
    with open(table, newline="") as file:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
