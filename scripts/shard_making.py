"""All shards of a data set: made, verified, listed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from shard_crew import Crew, make, verify
from shard_files import PART_SUFFIX, Job, Made, Workshop, write_whole
from shard_images import Form
from shard_plan import check_folder, planned, settings_of
from tqdm import tqdm

from fovea.data import ImageDataModule
from fovea.data.processors import processor_share
from fovea.data.shard_index import INDEX_FILE, ShardIndex
from fovea.data.sources import EncodedSource
from fovea.errors import FoveaError

FEW = 2000
"""Images up to which one process is done before several have started."""


def make_shards(
    data: ImageDataModule,
    command: str,
    *,
    out: str,
    max_size: int | None,
    quality: int | None,
    shard_mb: float,
    num_workers: int | Literal["auto"],
) -> None:
    """Store all splits of ``data`` in shards, and print what was made.

    Args:
        data: prepared.
        command: that asked for it, for the record.
        out: folder of the shards.
        max_size: see `Form`.
        quality: see `Form`.
        shard_mb: size of a shard in millions of bytes.
        num_workers: processes.

    Raises:
        FoveaError: with what to do about it.
    """
    started = time.monotonic()
    check_use(data, max_size, quality)
    check_text([*data.class_names, data.found.layout, command])
    form = Form(max_size, quality, data.preprocessing.channels)
    folder = Path(out).expanduser().absolute()
    workshop = Workshop(folder, data.splits, form, skip=data.on_bad_image != "error")
    settings = settings_of(data, workshop, shard_mb)
    check_folder(workshop, settings)
    workshop.records.mkdir(parents=True, exist_ok=True)
    size = processor_share(1) if num_workers == "auto" else num_workers
    try:
        with FileLock(workshop.records / "lock", timeout=0):
            made = work(workshop, planned(workshop, settings), size)
            index = write_index(workshop, data, made, command)
    except Timeout:
        raise FoveaError(f"Another process is making the shards in {folder}") from None
    report(index, folder, made, time.monotonic() - started)


def check_use(data: ImageDataModule, max_size: int | None, quality: int | None) -> None:
    """Raise for a setting that changes nothing."""
    files = all(isinstance(split.source, EncodedSource) for split in data.splits.values())
    if quality is not None and max_size is None and files:
        raise FoveaError(
            f"quality={quality} has no effect: without max_size image files are stored "
            "untouched. Add max_size=400 to shrink them, or leave quality out."
        )


def check_text(texts: Sequence[str]) -> None:
    """Raise for names that the index cannot hold."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise FoveaError(f"{text!r} is not UTF-8: rename the folder of that name") from None


def work(workshop: Workshop, jobs: Sequence[Job], num_workers: int) -> list[Made]:
    """Make the shards that are not there and verify all; return what is known of each."""
    total = sum(len(job.rows) for job in jobs)
    to_do = [job for job in jobs if workshop.record(job) is None]
    there = total - sum(len(job.rows) for job in to_do)
    size = min(num_workers, len(jobs)) if total > FEW else 1
    with Crew(workshop, size) as crew:
        if to_do:
            with tqdm(total=total, initial=there, desc="storing", unit="image") as bar:
                crew.run(make, to_do, bar)
        with tqdm(total=total, desc="verifying", unit="image") as bar:
            return crew.run(verify, jobs, bar)


def write_index(
    workshop: Workshop, data: ImageDataModule, made: Sequence[Made], command: str
) -> ShardIndex:
    """Write the index of the shards that were ``made``, and return it."""
    index = ShardIndex(
        made_from=data.found.layout,
        made_by=command,
        class_names=data.class_names,
        preprocessing=data.preprocessing,
        splits={
            name: workshop.list_images(name, [shard for shard in made if shard.job.split == name])
            for name in data.splits
        },
    )
    write_whole(workshop.folder / INDEX_FILE, index.model_dump(mode="json"))
    for part in workshop.folder.glob(f"*{PART_SUFFIX}"):
        part.unlink()
    return index


def report(index: ShardIndex, folder: Path, made: Sequence[Made], seconds: float) -> None:
    """Print what was made, what was left out, and how to train with it."""
    for name, split in index.splits.items():
        print(f"{name}: {split.images:,} images in {len(split.shards):,} shard(s)")
    stored = sum(shard.record.file.size for shard in made)
    original = sum(shard.record.original for shard in made)
    print(
        f"{stored / 1e6:,.1f} MB, {stored / original:.0%} of the images' {original / 1e6:,.1f} MB; "
        f"{len(index.class_names):,} classes; {seconds:.0f} s"
    )
    skipped = [entry for shard in made for entry in shard.record.skipped]
    if skipped:
        print(f"{len(skipped)} unreadable image(s) left out:")
        for _, path, reason in skipped:
            print(f"  {path}: {reason}")
    print(f"Ready: python src/train.py data=shards data.root={shlex.quote(str(folder))}")
