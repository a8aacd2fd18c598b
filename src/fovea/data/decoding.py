"""Images of known size whose pixels are decoded where they are needed: the fast way, or Pillow's.

All ways end in libjpeg-turbo with the same settings, so their pixels agree to the bit; what differs
is how much is decoded and copied. ``scripts/benchmark_input.py`` measures it.
"""

from __future__ import annotations

import os
from typing import Literal, Protocol

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from fovea.data import nvimagecodec
from fovea.data.images import (
    Name,
    max_pixels,
    naming,
    open_image,
    orientation,
    read_file,
    to_channels,
    to_tensor,
)

Decode = Literal["auto", "simplejpeg", "pil", "gpu"]

KEPT_REDUCTION = 3
"""An image decoded at 1/2 or 1/4 must still be this many times larger than what it is resized to.
Measured on 400 photographs: the resized result then has 51 dB PSNR (5th percentile) to that of
full scale, against 45 dB at 2 times."""

SCALES = (4, 2)
"""Denominators of reduced scales, the stronger first: those that libjpeg-turbo has SIMD code for
and that are worth it."""

SMALL_IMAGE = 256 * 256
"""In pixels. nvImageCodec takes longer to begin, which counts up to this size."""

SMALL_PART, PART = 0.3, 0.5
"""Of a small image, and of a larger one: up to this share of the area a part is decoded alone.
Above it the whole is decoded faster. Measured on 400 photographs at 256, 400 and 500 pixels."""

_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_TAIL = 64
_METADATA = (b"Exif\0\0", b"http://ns.adobe.com/xap/")

# How rows of pixels are to be turned for each EXIF orientation: transposed first, then flipped
# (vertically, horizontally). Source: EXIF 2.3, tag 0x0112.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class Picture(Protocol):
    """One image, upright, of known size.

    Attributes:
        height: in pixels.
        width: in pixels.
        fast: False once Pillow had to decode what the fast way does not take.
    """

    height: int
    width: int
    fast: bool

    def region(
        self, top: int, left: int, height: int, width: int, target: tuple[int, int]
    ) -> Tensor:
        """Return the pixels of a part, (C, h, w) uint8.

        Args:
            top: first row.
            left: first column.
            height: rows, at full scale.
            width: columns, at full scale.
            target: (height, width) in pixels that the part will be resized to. A part that is far
                larger may come at 1/2 or 1/4 of its scale, where its edges allow.

        Raises:
            UnreadableImage: the file is broken.
        """
        ...


class TensorPicture:
    """An image that is decoded already, (C, H, W) uint8."""

    fast = True

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[-2:]

    def region(
        self, top: int, left: int, height: int, width: int, target: tuple[int, int]
    ) -> Tensor:
        """Return a view of the part."""
        return self.pixels[:, top : top + height, left : left + width]


class PillowPicture:
    """An image that Pillow decodes, whole."""

    def __init__(self, image: Image.Image, name: Name, channels: int, fast: bool) -> None:
        self.image = image
        self.name = name
        self.channels = channels
        self.fast = fast
        self.width, self.height = image.size
        if orientation(image) >= 5:
            self.width, self.height = self.height, self.width

    def region(
        self, top: int, left: int, height: int, width: int, target: tuple[int, int]
    ) -> Tensor:
        """Return the part of the decoded image."""
        with naming(self.name):
            pixels = to_tensor(self.image, self.channels)
        return pixels[:, top : top + height, left : left + width]


class JpegPicture:
    """A JPEG of which only the wanted part is decoded, at a reduced scale where that will do.

    Args:
        data: the file's content, complete.
        name: for messages, or what gives it.
        channels: 1 or 3.
        parts: whether nvImageCodec may decode parts; else the whole is decoded and cut.

    Raises:
        ValueError: no JPEG, or one of a kind that the fast decoders do not take.
    """

    fast = True

    def __init__(self, data: bytes, name: Name, channels: int, parts: bool) -> None:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in {"YCbCr", "Gray", "RGB"} or not _is_complete(data):
            raise ValueError(f"a JPEG in {colours}, or cut off")
        if height * width > max_pixels():
            raise ValueError("more pixels than Pillow would read")
        self.data = data
        self.name = name
        self.channels = channels
        self.parts = parts
        # Grey of a colour image is made of its RGB, as Pillow does it: its luma plane is another.
        self.stored_channels = 1 if colours == "Gray" and channels == 1 else 3
        self.stored_size = height, width
        self.turn = orientation(open_image(data)) if _may_be_turned(data) else 1
        self.height, self.width = (height, width) if self.turn < 5 else (width, height)

    def region(
        self, top: int, left: int, height: int, width: int, target: tuple[int, int]
    ) -> Tensor:
        """Return the part, by Pillow if the decoders refuse the file."""
        scale = self._scale((top, left, height, width), target)
        area = self.height * self.width
        share = SMALL_PART if area <= SMALL_IMAGE else PART
        try:
            if self.parts and scale == 1 and self.turn == 1 and height * width <= share * area:
                part = (top, left, height, width, self.stored_channels)
                return to_channels(nvimagecodec.decode_part(self.data, *part), self.channels)
            return self._cut((top, left, height, width), scale)
        except ValueError:
            self.fast = False
            with naming(self.name):
                pillow = PillowPicture(open_image(self.data), self.name, self.channels, fast=False)
            return pillow.region(top, left, height, width, target)

    def _scale(self, box: tuple[int, int, int, int], target: tuple[int, int]) -> int:
        """Return the denominator of the smallest scale that keeps the pixels.

        Only where all edges fall on pixels of the smaller image: it would be shifted otherwise.
        """
        reduction = min(box[2] / target[0], box[3] / target[1])
        edges = (*box, *self.stored_size) if self.turn != 1 else box  # a flip counts from the end
        for scale in SCALES:
            if reduction >= scale * KEPT_REDUCTION and not any(edge % scale for edge in edges):
                return scale
        return 1

    def _cut(self, box: tuple[int, int, int, int], scale: int) -> Tensor:
        """Return a part of the whole image, decoded at 1 / ``scale``: (C, h, w) uint8.

        As NumPy sees it, which takes a part in a tenth of a tensor's time.
        """
        height, width = self.stored_size
        pixels = simplejpeg.decode_jpeg(
            self.data,
            colorspace="RGB" if self.stored_channels == 3 else "GRAY",
            min_height=-(-height // scale) if scale > 1 else 0,
            min_width=-(-width // scale) if scale > 1 else 0,
        )
        if self.turn != 1:
            transpose, vertical, horizontal = _TURNS[self.turn]
            pixels = pixels.swapaxes(0, 1) if transpose else pixels
            pixels = np.flip(pixels, tuple(axis for axis in (0, 1) if (vertical, horizontal)[axis]))
        top, left, height, width = (edge // scale for edge in box)
        part = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        return to_channels(torch.from_numpy(part).permute(2, 0, 1), self.channels)


def _is_complete(data: bytes) -> bool:
    """Return whether a JPEG ends as it should.

    The marker for its end cannot occur among coded pixels. Where it is missing the file was cut
    off, which a decoder that stops after the wanted part does not see; Pillow does.
    """
    return _END_OF_IMAGE in data[-_TAIL:]


def _may_be_turned(data: bytes) -> bool:
    """Return whether a JPEG has metadata of a kind that can say how the picture is turned."""
    header = data[: data.find(_START_OF_SCAN)]
    return any(mark in header for mark in _METADATA)


def open_picture(data: bytes, name: Name, channels: int = 3, decode: Decode = "auto") -> Picture:
    """Return the encoded image ``data`` with its header read.

    Pixels are those of `fovea.data.images.decode_image`.

    Args:
        data: content of the file.
        name: for messages; a function where it takes longer than a header to make one up.
        channels: 1 (grey) or 3 (RGB).
        decode: ``auto`` decodes 8-bit JPEGs in grey or colour by nvImageCodec (parts) and
            simplejpeg (whole images), all else by Pillow; ``simplejpeg`` goes without nvImageCodec;
            ``pil`` is Pillow alone; ``gpu`` is here like ``simplejpeg``, see
            `fovea.data.undecoded`.

    Raises:
        UnreadableImage: what is no image, or a broken one; so does `Picture.region`.
    """
    fallback = decode != "pil"
    if fallback and data.startswith(_START_OF_IMAGE):
        parts = decode == "auto" and nvimagecodec.available()
        try:
            return JpegPicture(data, name, channels, parts)
        except (ValueError, OSError):  # Pillow may know better, or say what is wrong
            pass
    with naming(name):
        return PillowPicture(open_image(data), name, channels, fast=not fallback)


def open_file(path: str | os.PathLike[str], channels: int = 3) -> Picture:
    """Return the image in file ``path``, as `open_picture` does."""
    name = os.fspath(path)
    return open_picture(read_file(name), name, channels)
