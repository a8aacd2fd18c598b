"""Shards: all images of a data set in a few large files, made by scripts/prepare_shards.py."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fovea.data.checking import BadImage
from fovea.data.index import cache_folder
from fovea.data.module import ImageDataModule
from fovea.data.sampling import EpochOrder
from fovea.data.shard_folder import LocalFolder, ShardFolder, open_folder
from fovea.data.shard_index import Rows, ShardIndex, StoredFile, read_rows
from fovea.data.sources import EncodedSource
from fovea.data.splits import SPLITS, Found, Split
from fovea.data.storage import read_again
from fovea.errors import FoveaError
from fovea.types import Preprocessing

REMOTE_WINDOW = 16
"""Shards of a URL that are mixed at a time: so many must be fetched before the first batch."""

OPEN_SHARDS = 256
"""Shards that a process keeps open; systems allow as few as 1024 files."""


class ShardSource(EncodedSource):
    """Images in shards, read one by one where they lie.

    Args:
        folder: that the shards are in.
        shards: of the split.
        rows: of its images.
    """

    def __init__(self, folder: ShardFolder, shards: Sequence[StoredFile], rows: Rows) -> None:
        super().__init__(rows.paths)
        self.folder = folder
        self.shards = shards
        self.places = rows.places

    def path(self, number: int) -> str:
        """Return the shard's path with the image's original one behind it."""
        shard = self.shards[int(self.places[number, 0])]
        return f"{self.folder}/{shard.name}/{self.relative_path(number)}"

    def encoded(self, number: int) -> bytes:
        """Return the image as it is stored.

        Raises:
            FoveaError: the shard is gone, cannot be read, or is cut short.
        """
        place, offset, size = self.places.numpy()[number].tolist()
        shard = self.shards[place]
        try:
            # Reads at a place of its own, so that threads and forked workers may share the file.
            data = os.pread(_opened(self.folder, shard).fileno(), size, offset)
        except OSError as error:  # a shard is no image that could be left out
            read = partial(self._read_anew, shard, size, offset)
            data = read_again(read, f"{self.folder}/{shard.name}", error)
        if len(data) != size:
            raise FoveaError(
                f"Shard {self.folder}/{shard.name} ends before image {self.relative_path(number)}: "
                "it was cut short since the start"
            )
        return data

    def _read_anew(self, shard: StoredFile, size: int, offset: int) -> bytes:
        _opened.cache_clear()  # what is open may be of a server that has forgotten it
        return os.pread(_opened(self.folder, shard).fileno(), size, offset)


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(folder: ShardFolder, shard: StoredFile) -> io.FileIO:
    """Return the open shard; it is closed when the last one who uses it is done."""
    return io.FileIO(folder.path(shard))


class ShardsDataModule(ImageDataModule):
    """A data set in shards, with the classes, splits and preprocessing it had when they were made.

    Samples, their order and their pixels are those of the data set they were made from, as long as
    its images were stored untouched.

    Args:
        root: folder, or a URL for fsspec such as ``s3://bucket/photos``; each shard of a URL is
            fetched whole when it is first needed, and kept.
        shuffle_window: shards whose images are mixed with each other, the shards coming in a new
            order in each epoch; None: all. ``auto``: all of a folder, `REMOTE_WINDOW` of a URL.
        cache_dir: where shards of a URL are kept. None: ``$FOVEA_CACHE``, else the user's cache.
    """

    def __init__(
        self,
        root: str,
        shuffle_window: int | Literal["auto"] | None = "auto",
        cache_dir: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if isinstance(shuffle_window, int) and shuffle_window < 1:
            raise FoveaError(f"data.shuffle_window={shuffle_window} must be at least 1, or null")
        if isinstance(shuffle_window, int) and self.sampling == "balanced":
            raise FoveaError(
                f"data.shuffle_window={shuffle_window} has no meaning with data.sampling=balanced, "
                "which draws from all images: take data.shuffle_window=null"
            )
        self.root = root if "://" in root else str(Path(root).expanduser().absolute())
        self.shuffle_window = shuffle_window
        self.cache = (
            cache_folder() if cache_dir is None else Path(cache_dir).expanduser().absolute()
        )

    @cached_property
    def _contents(self) -> tuple[ShardFolder, ShardIndex]:
        return open_folder(self.root, self.cache)

    def _default_preprocessing(self) -> Preprocessing:
        return self._contents[1].preprocessing

    def _find(self) -> Found:
        folder, index = self._contents
        folder.check(index)
        splits = {}
        for name, split in index.splits.items():
            rows = read_rows(folder.path(split.rows), split, len(index.class_names))
            splits[name] = Split.whole(ShardSource(folder, split.shards, rows), rows.labels)
        missing = {
            name: f"The shards in {self.root} have no {name} split, as the data set had none that "
            f"they were made from ({index.made_from}). Take another split, or make them anew."
            for name in SPLITS
            if name not in splits
        }
        layout = f"shards in {self.root} (of {index.made_from})"
        return Found(list(index.class_names), splits, False, layout, missing)

    def _window(self) -> int | None:
        """Return how many shards are mixed at a time; None for all."""
        if self.shuffle_window != "auto":
            return self.shuffle_window
        all_at_hand = isinstance(self._contents[0], LocalFolder)
        return None if all_at_hand or self.sampling == "balanced" else REMOTE_WINDOW

    def _epoch_order(self, labels: Tensor) -> EpochOrder:
        train = self._split("train")
        assert isinstance(train.source, ShardSource)
        shards = train.source.places[train.numbers, 0]
        return EpochOrder(
            labels, self.seed, self.sampling, self.repeats, shards, window=self._window()
        )

    def describe(self) -> list[tuple[str, str]]:
        """Return (what, value) rows for the summary at the start of a run."""
        rows = super().describe()
        if (window := self._window()) is not None and "train" in self.splits:
            shards = len(self._contents[1].splits["train"].shards)
            rows.append(("shuffling", f"{min(window, shards)} of {shards} shards at a time"))
        return rows

    def check(self, num_workers: int | None = None) -> list[BadImage]:
        """Compare each file with its checksum, then read all images as other data sets do."""
        folder, index = self._contents
        damaged = [
            BadImage(str(path), "is not the file that was recorded (checksum)", name, False)
            for name, split in index.splits.items()
            for path, file in ((folder.path(file), file) for file in split.shards)
            if StoredFile.of(path) != file
        ]
        return [*damaged, *super().check(num_workers)]
