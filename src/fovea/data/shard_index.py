"""What a folder of shards holds: the format that scripts/prepare_shards.py writes.

    index.json           classes, preprocessing, and the files of each split with their checksums
    train.npz            where each image lies, its label and its original path; so for each split
    train-000000.tar …   images and labels, NNN.jpg and NNN.cls: WebDataset's layout

The shards are plain tar archives, which any tar or WebDataset reader takes as they are. The index
beside them makes them random access, one ``pread`` an image: so the samplers of image folders,
which shuffle all images, shard exactly and go on in mid-epoch, serve shards as well.

Measured with 10,000 JPEGs of 17 kB in two shards, in microseconds of CPU an image. In random order:
4.4 this way; 12 from files; 12 by ``wids``, WebDataset's random access, which its 1.0 dropped; 440
by LitData 0.2.76. In their own order: LitData 5, WebDataset 1.0.2 62. LitData's format is its own,
and it brings some 50 MB of cloud clients.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from torch import Tensor

from fovea.errors import FoveaError
from fovea.types import Preprocessing

FORMAT = 1
INDEX_FILE = "index.json"


class StoredFile(NamedTuple):
    """One file of the folder.

    Attributes:
        name: without folder.
        size: in bytes.
        checksum: SHA-256 in hexadecimal digits, as ``sha256sum`` prints it.
    """

    name: str
    size: int
    checksum: str

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """Return the record of the file ``path``."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return cls(path.name, path.stat().st_size, digest.hexdigest())


def _plain_name(file: StoredFile) -> StoredFile:
    # It is joined to a folder, where the file is opened, or written when it is fetched.
    if not re.fullmatch(r"[\w-][\w.-]*", file.name) or file.size < 0:
        raise ValueError(f"{file.name!r} is not the plain name of a file")
    return file


PlainFile = Annotated[StoredFile, AfterValidator(_plain_name)]


class ShardedSplit(BaseModel):
    """The files of one split.

    Attributes:
        images: how many.
        rows: the file with their `Rows`.
        shards: the tar archives; places count them from 0.
    """

    images: int
    rows: PlainFile
    shards: list[PlainFile]


class ShardIndex(BaseModel):
    """What ``index.json`` says.

    Attributes:
        format: version of all that is described here.
        made_from: the data set, in a few words.
        made_by: the command.
        class_names: in label order.
        preprocessing: of evaluation, unless the user or pre-trained weights say otherwise.
        splits: by name.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    made_from: str
    made_by: str
    class_names: list[str]
    preprocessing: Preprocessing
    splits: dict[str, ShardedSplit]

    def files(self) -> list[StoredFile]:
        """Return all files that the folder holds beside the index."""
        return [file for split in self.splits.values() for file in (split.rows, *split.shards)]


class Rows(NamedTuple):
    """The images of one split, in its order.

    Attributes:
        places: (N, 3) int64, of each image its shard, first byte and size in bytes.
        labels: (N,) int64 in [0, K).
        paths: (N, width) uint8, the paths in the data set the shards were made from, as the file
            system encodes them, padded by zeros.
    """

    places: Tensor
    labels: Tensor
    paths: Tensor

    @classmethod
    def of(cls, places: Tensor, labels: Tensor, paths: NDArray[np.bytes_]) -> Rows:
        """Return rows of (N,) ``paths``."""
        letters = paths.view(np.uint8).reshape(len(paths), paths.itemsize)
        return cls(places, labels, torch.from_numpy(letters))

    def write(self, path: Path) -> StoredFile:
        """Write to ``path``, at once whole, and return its record."""
        arrays = {name: tensor.numpy() for name, tensor in self._asdict().items()}
        part = path.with_name(f"{path.name}.part")
        with open(part, "wb") as file:
            np.savez(file, **arrays)
        part.replace(path)
        return StoredFile.of(path)


def parse_index(text: bytes, place: str) -> ShardIndex:
    """Return the index that ``index.json`` in ``place`` holds.

    Raises:
        FoveaError: of another format version, or no index at all.
    """
    try:
        index = ShardIndex.model_validate_json(text)
    except ValidationError as error:
        version = _version(text)
        if version in (None, FORMAT):
            raise FoveaError(
                f"{place}/{INDEX_FILE} is damaged ({error.errors()[0]['msg']}). Copy it again, or "
                "make it anew by the scripts/prepare_shards.py command that made the folder."
            ) from None
        raise _other_format(place, version) from None
    if index.format != FORMAT:
        raise _other_format(place, index.format)
    return index


class _Version(BaseModel):
    format: int


def _version(text: bytes) -> int | None:
    try:
        return _Version.model_validate_json(text).format
    except ValidationError:
        return None


def _other_format(place: str, version: int | None) -> FoveaError:
    return FoveaError(
        f"{place} holds shards of format {version}, and this version of fovea reads format "
        f"{FORMAT}. Update fovea, or make the shards anew: python scripts/prepare_shards.py --help"
    )


def read_rows(path: Path, split: ShardedSplit, num_classes: int) -> Rows:
    """Return the rows of ``split``, whose file is ``path``.

    Raises:
        FoveaError: they are not those that the index speaks of.
    """
    try:
        if StoredFile.of(path) != split.rows:
            raise ValueError("its checksum is another")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in _entries(path)):
            raise ValueError("it is packed, and could unpack to any size")
        with np.load(path, allow_pickle=False) as arrays:
            rows = Rows(*(torch.from_numpy(arrays[name]) for name in Rows._fields))
        _check(rows, split, num_classes)
    except Exception as error:  # a damaged or forged archive raises anything
        raise FoveaError(
            f"{path} does not belong to the {INDEX_FILE} beside it ({error}). Copy both again from "
            "where they came from, or make them anew by the scripts/prepare_shards.py command that "
            f"made the folder ({INDEX_FILE} has it under 'made_by')."
        ) from None
    return rows


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _check(rows: Rows, split: ShardedSplit, num_classes: int) -> None:
    """Raise ValueError for places, labels and paths that cannot be."""
    wanted = {"places": (torch.int64, 2), "labels": (torch.int64, 1), "paths": (torch.uint8, 2)}
    for name, (dtype, dims) in wanted.items():
        tensor = getattr(rows, name)
        if tensor.dtype != dtype or tensor.dim() != dims:
            raise ValueError(f"its {name} are of another kind")
    if rows.places.shape[1] != 3:
        raise ValueError("its places are of another kind")
    if not len(rows.places) == len(rows.labels) == len(rows.paths) == split.images > 0:
        raise ValueError(f"it lists {len(rows.labels)} images, not {split.images}")
    if int(rows.labels.min()) < 0 or int(rows.labels.max()) >= num_classes:
        raise ValueError(f"it has labels beyond the {num_classes} classes")
    shards, offsets, sizes = rows.places.unbind(1)
    if int(rows.places.min()) < 0 or int(shards.max()) >= len(split.shards):
        raise ValueError(f"it points beyond the {len(split.shards)} shards")
    ends = torch.tensor([shard.size for shard in split.shards])
    if bool((offsets + sizes > ends[shards]).any()):
        raise ValueError("it points beyond the end of a shard")
