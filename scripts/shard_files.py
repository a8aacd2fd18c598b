"""The files of a folder of shards: tar archives, written and read back, and the list of images."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from shard_images import Form

from fovea.data.images import UnreadableImage
from fovea.data.shard_index import Rows, ShardedSplit, StoredFile
from fovea.data.splits import Split
from fovea.errors import FoveaError

PART_SUFFIX = ".part"
RECORDS = ".prepare_shards"
"""Folder beside the shards, of what their making needs to go on."""

_OVERHEAD = 3 * tarfile.BLOCKSIZE + tarfile.BLOCKSIZE // 2  # two headers, a label, padding


class Job(NamedTuple):
    """One shard to be made.

    Attributes:
        split: name.
        number: counted from 0 in the split.
        rows: (n,) int64, its images: positions in the split, in the order of the shard.
    """

    split: str
    number: int
    rows: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.split}-{self.number:06d}.tar"


class Record(NamedTuple):
    """What is kept of a shard that was made.

    Attributes:
        file: the archive.
        original: bytes that its images had in the data set.
        skipped: (row, path, reason) of images left out, being unreadable.
    """

    file: StoredFile
    original: int
    skipped: list[tuple[int, str, str]]


class Made(NamedTuple):
    """A shard that was made and read back.

    Attributes:
        job: that it came from.
        record: of its making.
        images: (n, 3) int64, row, first byte and size of each image.
    """

    job: Job
    record: Record
    images: NDArray[np.int64]


@dataclass(frozen=True)
class Workshop:
    """Where shards are made, and of what: the same for all of them.

    Attributes:
        folder: of the shards.
        splits: by name.
        form: how images are stored.
        skip: leave unreadable images out, instead of stopping.
    """

    folder: Path
    splits: dict[str, Split]
    form: Form
    skip: bool

    @property
    def records(self) -> Path:
        """Folder of what is known of the shards that were made."""
        return self.folder / RECORDS

    def record(self, job: Job) -> Record | None:
        """Return what is known of a shard that lies there whole; None if it is to be made."""
        try:
            fields = json.loads((self.records / f"{job.name}.json").read_text())
            file = StoredFile(*fields["file"])
            if (self.folder / job.name).stat().st_size != file.size:
                return None
        except OSError:
            return None
        return Record(file, fields["original"], [tuple(entry) for entry in fields["skipped"]])

    def write(self, job: Job) -> Iterator[None]:
        """Make a shard, yielding after each image; it is there at once whole, and then recorded.

        Raises:
            UnreadableImage: naming the file, unless such are skipped.
        """
        split = self.splits[job.split]
        part, original, skipped = self.folder / f"{job.name}{PART_SUFFIX}", 0, []
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
            for row in job.rows.tolist():
                number = int(split.numbers[row])
                try:
                    stored = self.form.store(split.source, number)
                except UnreadableImage as error:
                    if not self.skip:
                        raise
                    skipped.append((row, error.path, error.reason))
                else:
                    original += stored.original
                    _add(archive, f"{row:09d}{stored.suffix}", stored.data)
                    _add(archive, f"{row:09d}.cls", str(int(split.labels[row])).encode())
                yield
        file = StoredFile.of(part)._replace(name=job.name)
        part.replace(self.folder / job.name)
        write_whole(
            self.records / f"{job.name}.json",
            {"file": file, "original": original, "skipped": skipped},
        )

    def verify(self, job: Job) -> Made:
        """Return what is found in a shard, read back.

        Raises:
            FoveaError: it is not what was written, or holds other images or labels.
        """
        record, path = self.record(job), self.folder / job.name
        if record is None or StoredFile.of(path) != record.file:
            raise FoveaError(
                f"{path} is not what was written to it: the disk is failing, or something else "
                "changed the file. Delete it and type the same command again: it makes only that."
            )
        found, labels = [], []
        with tarfile.open(path) as archive:
            for image, label in _pairs(archive):
                found.append((int(image.name.partition(".")[0]), image.offset_data, image.size))
                labels.append(int(_content(archive, label)))
        left_out = {row for row, _, _ in record.skipped}
        expected = [row for row in job.rows.tolist() if row not in left_out]
        if [row for row, _, _ in found] != expected:
            raise FoveaError(f"{path} holds other images than it should")
        if labels != self.splits[job.split].labels[expected].tolist():
            raise FoveaError(f"{path} holds other labels than the data set")
        return Made(job, record, np.array(found, dtype=np.int64).reshape(-1, 3))

    def list_images(self, name: str, shards: Sequence[Made]) -> ShardedSplit:
        """Write the rows of split ``name``, all in ``shards``, and return its entry in the index.

        Raises:
            FoveaError: not one image is left, or a class has more or fewer than in the data set.
        """
        split = self.splits[name]
        table = torch.from_numpy(
            np.concatenate([np.insert(made.images, 1, i, axis=1) for i, made in enumerate(shards)])
        )
        table = table[torch.argsort(table[:, 0])]
        rows = table[:, 0]
        if not len(rows):
            raise FoveaError(f"Not one image of the {name} split could be read")
        skipped = torch.tensor([row for made in shards for row, _, _ in made.record.skipped])
        counted = torch.bincount(split.labels[torch.cat([rows, skipped.long()])])
        if not torch.equal(counted, torch.bincount(split.labels)):
            raise FoveaError(f"The shards of {name} do not hold all images of each class")
        relative_path = split.source.relative_path
        paths = [os.fsencode(relative_path(number)) for number in split.numbers[rows].tolist()]
        listed = Rows.of(table[:, 1:].clone(), split.labels[rows], np.array(paths, np.bytes_))
        file = listed.write(self.folder / f"{name}.npz")
        return ShardedSplit(
            images=len(rows), rows=file, shards=[made.record.file for made in shards]
        )

    def bytes_an_image(self, split: str, rows: NDArray[np.int64]) -> float:
        """Return the mean bytes that the images ``rows`` take up in a shard."""
        sizes = []
        for row in rows.tolist():
            source, number = self.splits[split].source, int(self.splits[split].numbers[row])
            try:
                sizes.append(len(self.form.store(source, number).data))
            except UnreadableImage:  # met again, and told of, when its shard is made
                continue
        return _OVERHEAD + float(np.mean(sizes or [0]))


def write_whole(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, so that a cut leaves the old file or the new one."""
    part = path.with_name(path.name + PART_SUFFIX)
    part.write_text(json.dumps(value))
    part.replace(path)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    # Time and owner stay unset: the same images make the same shard, byte for byte.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _pairs(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarInfo]]:
    """Yield the members of an image and its label."""
    members = iter(archive)
    yield from zip(members, members, strict=True)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()
