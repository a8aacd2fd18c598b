"""Where pixels come from: files on disk, or a tensor in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fovea.data.images import UnreadableImage, decode_image, to_channels


class ImageSource(Protocol):
    """A numbered pool of images; a split is a list of its numbers."""

    def __len__(self) -> int: ...

    def path(self, number: int) -> str:
        """Return the file's path, or a name such as ``digits/12`` for an image in memory."""
        ...

    def relative_path(self, number: int) -> str:
        """Return the path in a form that does not change when the folder is moved."""
        ...

    def read(self, number: int, channels: int) -> Tensor:
        """Return (C, h, w) uint8. Raises `UnreadableImage`."""
        ...

    def load(self) -> None:
        """Read ahead what is to be kept in memory; called before worker processes start."""
        ...


class FileSource:
    """Image files below ``root``, decoded at each read.

    Args:
        root: folder.
        paths: relative to ``root``, or absolute.
    """

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root = root
        # One array instead of a million strings: forked workers share its pages for good, where
        # the reference counts of strings would copy them, page by page, into every worker.
        self._paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._paths)

    def relative_path(self, number: int) -> str:
        """Return the path as given."""
        return os.fsdecode(bytes(self._paths[number]))

    def path(self, number: int) -> str:
        """Return the whole path."""
        return os.path.join(self.root, self.relative_path(number))

    def read(self, number: int, channels: int) -> Tensor:
        """Return the decoded file, (C, h, w) uint8."""
        return decode_image(self.path(number), channels)

    def load(self) -> None:
        """Nothing is kept in memory."""


class MemorySource:
    """Images in a tensor (N, c, h, w) uint8, named ``name/<number>``."""

    def __init__(self, images: Tensor, name: str) -> None:
        self.images = images
        self.name = name

    def __len__(self) -> int:
        return len(self.images)

    def relative_path(self, number: int) -> str:
        """Return ``name/<number>``."""
        return f"{self.name}/{number}"

    def path(self, number: int) -> str:
        """Return ``name/<number>``."""
        return self.relative_path(number)

    def read(self, number: int, channels: int) -> Tensor:
        """Return image ``number``, (C, h, w) uint8."""
        return to_channels(self.images[number], channels)

    def load(self) -> None:
        """All is in memory already."""


class CachedSource(FileSource):
    """Small image files of one size, all decoded once into memory by `load`.

    Args:
        root: folder.
        paths: relative to ``root``.
        size: height and width of every image in pixels; another size counts as unreadable.
    """

    def __init__(self, root: Path, paths: Sequence[str], size: int) -> None:
        super().__init__(root, paths)
        self.size = size
        self._images: Tensor | None = None
        self._failures: dict[int, str] = {}

    def load(self) -> None:
        """Decode all files."""
        if self._images is not None:
            return
        self._images = torch.zeros(len(self), 3, self.size, self.size, dtype=torch.uint8)
        # In threads it is no faster: for images this small Python's own work prevails.
        for number in tqdm(range(len(self)), desc="reading images", unit="file", disable=None):
            try:
                self._images[number] = self._decode(number)
            except UnreadableImage as error:
                self._failures[number] = error.reason

    def _decode(self, number: int) -> Tensor:
        image = decode_image(self.path(number))
        _, height, width = image.shape
        if (height, width) != (self.size, self.size):
            reason = f"it has {width}x{height} pixels, not {self.size}x{self.size}"
            raise UnreadableImage(self.path(number), reason)
        return image

    def read(self, number: int, channels: int) -> Tensor:
        """Return image ``number``, (C, h, w) uint8."""
        self.load()
        assert self._images is not None
        if number in self._failures:
            raise UnreadableImage(self.path(number), self._failures[number])
        return to_channels(self._images[number], channels)
