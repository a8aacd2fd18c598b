"""How an image goes into a shard: untouched, shrunk, or encoded for the first time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageMode
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from fovea.data.decoding import open_picture
from fovea.data.images import open_image
from fovea.data.sources import EncodedSource, ImageSource
from fovea.data.views import whole_view

QUALITY = 90
"""Of JPEGs that are shrunk, unless another is given."""

_JPEG = {"JPEG", "MPO"}


class Stored(NamedTuple):
    """An image as it goes into a shard.

    Attributes:
        data: encoded.
        suffix: such as ".jpg".
        original: bytes it had in the data set.
    """

    data: bytes
    suffix: str
    original: int


@dataclass(frozen=True)
class Form:
    """How images are stored.

    Attributes:
        max_size: the longer side in pixels that no image exceeds; None: as in the data set.
            (FFCV's ``max_resolution``.)
        quality: of images that are encoded anew as JPEG, 1 to 100; None: `QUALITY` for those from
            files, and lossless PNG for those that the data set holds in memory.
        channels: of images that the data set holds in memory, 1 or 3.
    """

    max_size: int | None
    quality: int | None
    channels: int

    def store(self, source: ImageSource, number: int) -> Stored:
        """Return image ``number`` of ``source``: untouched if it may be.

        All are decoded, so that a broken image is found now and not in training.

        Raises:
            UnreadableImage: naming the file.
        """
        if not isinstance(source, EncodedSource):
            pixels = self._shrunk(whole_view(source.open(number, self.channels)))
            return Stored(*_encoded(pixels, self.quality), pixels.numel())
        data = source.encoded(number)
        name = source.path(number)
        pixels = whole_view(open_picture(data, name))
        with open_image(data) as image:
            grey = ImageMode.getmode(image.mode).basemode == "L"
            jpeg = image.format in _JPEG
            plain = jpeg and image.mode in {"RGB", "L"}
            suffix = ".jpg" if jpeg else f".{str(image.format).lower()}"
        small = self.max_size is None or max(pixels.shape[1:]) <= self.max_size
        if self.max_size is None or (small and plain):
            return Stored(data, suffix, len(data))
        pixels = self._shrunk(pixels)
        # All three channels of a grey image are the same.
        return Stored(*_encoded(pixels[:1] if grey else pixels, self.quality or QUALITY), len(data))

    def _shrunk(self, pixels: Tensor) -> Tensor:
        """Return (C, h, w) uint8 ``pixels`` with no side longer than ``max_size``.

        Bicubic and antialiased: on photographs within 0.3 dB of Lanczos' filter, which takes seven
        times as long.
        """
        longest = max(pixels.shape[1:])
        if self.max_size is None or longest <= self.max_size:
            return pixels
        size = [max(1, round(side * self.max_size / longest)) for side in pixels.shape[1:]]
        mode = InterpolationMode.BICUBIC
        shrunk: Tensor = tvf.resize(pixels, size, interpolation=mode, antialias=True)
        return shrunk


def _encoded(pixels: Tensor, quality: int | None) -> tuple[bytes, str]:
    """Return (1 or 3, h, w) uint8 ``pixels`` as JPEG, or as PNG without ``quality``; the suffix."""
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array[..., 0] if len(pixels) == 1 else array)
    file = io.BytesIO()
    if quality is None:
        image.save(file, "PNG")
        return file.getvalue(), ".png"
    # Huffman tables of its own: 3 % less to read, and 3 % less time to decode it each epoch.
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
    return file.getvalue(), ".jpg"
