"""Where pixels come from: files on disk, or a tensor in memory."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.data.decoding import Decode, Picture, TensorPicture, open_picture
from fovea.data.images import UnreadableImage, read_file, to_channels

Paths = Sequence[str] | NDArray[np.bytes_]


class ImageSource(Protocol):
    """A numbered pool of images; a split is a list of its numbers."""

    def __len__(self) -> int: ...

    def path(self, number: int) -> str:
        """Return the file's path, or a name such as ``digits/12`` for an image in memory."""
        ...

    def relative_path(self, number: int) -> str:
        """Return the path in a form that does not change when the folder is moved."""
        ...

    def open(self, number: int, channels: int, decode: Decode = "auto") -> Picture:
        """Return the image, its size known, to be decoded where it is needed.

        Raises:
            UnreadableImage: so does what the picture is asked for later.
        """
        ...


class EncodedSource(ABC):
    """Images that are stored encoded (as JPEG and the like) and decoded at each read.

    Args:
        paths: (N, width) uint8, the path of each as the file system encodes it, padded by zeros.
            One array of bytes instead of a million strings, whose reference counts would copy them,
            page by page, into every forked worker. A tensor, since torch puts tensors in shared
            memory for workers that are not forked, too.
    """

    def __init__(self, paths: Tensor) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def relative_path(self, number: int) -> str:
        """Return the path in the data set."""
        return os.fsdecode(self._paths.numpy()[number].tobytes().rstrip(b"\0"))

    def relative_paths(self, numbers: Tensor) -> NDArray[np.bytes_]:
        """Return the paths of images ``numbers`` (n,) int64, encoded: (n,) bytes."""
        paths = self._paths.numpy().view(f"S{self._paths.shape[1]}").ravel()
        return paths[numbers.numpy()]

    @abstractmethod
    def path(self, number: int) -> str:
        """Return what names image ``number`` in messages."""

    @abstractmethod
    def encoded(self, number: int) -> bytes:
        """Return the encoded image ``number``. Raises `UnreadableImage`."""

    def open(self, number: int, channels: int, decode: Decode = "auto") -> Picture:
        """Return the image with its header read."""
        return open_picture(self.encoded(number), partial(self.path, number), channels, decode)


class FileSource(EncodedSource):
    """Image files below ``root``, decoded at each read.

    Args:
        root: folder.
        paths: relative to ``root``, or absolute; text, or as the file system encodes them.
    """

    def __init__(self, root: Path, paths: Paths) -> None:
        self.root = root
        if not isinstance(paths, np.ndarray):
            paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
        letters = paths.view(np.uint8).reshape(len(paths), paths.itemsize)
        super().__init__(torch.from_numpy(letters))

    def path(self, number: int) -> str:
        """Return the whole path."""
        return os.path.join(self.root, self.relative_path(number))

    def encoded(self, number: int) -> bytes:
        """Return the file's content."""
        return read_file(self.path(number), self.root)


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

    def open(self, number: int, channels: int, decode: Decode = "auto") -> Picture:
        """Return image ``number``."""
        return TensorPicture(to_channels(self.images[number], channels))


class SizedFileSource(FileSource):
    """Image files that all have one size.

    Args:
        root: folder.
        paths: relative to ``root``.
        size: height and width of every image in pixels; another size counts as unreadable.
    """

    def __init__(self, root: Path, paths: Sequence[str], size: int) -> None:
        super().__init__(root, paths)
        self.size = size

    def open(self, number: int, channels: int, decode: Decode = "auto") -> Picture:
        """Return the image with its header read and its size checked."""
        picture = super().open(number, channels, decode)
        if (picture.height, picture.width) != (self.size, self.size):
            reason = f"it has {picture.width}x{picture.height} pixels, not {self.size}x{self.size}"
            raise UnreadableImage(self.path(number), reason)
        return picture
