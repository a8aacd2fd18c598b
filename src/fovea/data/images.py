"""From an image file, however odd, to a uint8 tensor; or to one sentence why not."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from fovea.data.storage import is_away, read_again
from fovea.errors import FoveaError

IMAGE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "jpg jpeg jpe jfif png apng bmp gif webp tif tiff ppm pgm pbm pnm".split()  # noqa: SIM905
)
"""Files whose lower-cased suffix is one of these are taken for images; their content decides the
format."""

MAX_ASPECT = 16
"""An image longer than this many times its short side is cut to its middle before a resize that
keeps the aspect: 1 x 20,000 pixels would become 224 x 4,480,000 otherwise, and 3 GB."""

FORMATS = tuple(
    "AVIF BMP DIB GIF ICO JPEG JPEG2000 MPO PNG PPM TGA TIFF WEBP".split()  # noqa: SIM905
)
"""What Pillow may read. Some others start programs (EPS starts Ghostscript), or have no user here
and old decoders."""

# Larger images are refused by their header, before memory is taken for them: a small file may claim
# to be 65,500 x 65,500 pixels, 12.9 GB. Pillow's limit, unless the environment sets another.
# Between one and two times its limit Pillow only warns, and the image is fine; beyond, it raises.
# Not by a context manager around each read, which is not safe in threads.
if _limit := os.environ.get("FOVEA_MAX_PIXELS"):
    if not _limit.isdecimal():
        raise FoveaError(f"FOVEA_MAX_PIXELS={_limit} in the environment: expected a whole number")
    Image.MAX_IMAGE_PIXELS = int(_limit) // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I;16N", "I"}
_ALPHA_MODES = {"RGBA", "LA", "PA", "La", "RGBa"}
_ORIENTATION_TAG = 0x0112


class UnreadableImage(FoveaError):  # noqa: N818 - named for what it is about
    """An image that cannot be decoded; `reason` says why, without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"Cannot read image {path}: {reason}. Remove or mend the file, or go on without such "
            "files by data.on_bad_image=skip (counted at the end) or =report (named at once)."
        )
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


def decode_image(path: str | os.PathLike[str], channels: int = 3) -> Tensor:
    """Return the image in file ``path`` as (C, h, w) uint8, upright and in RGB or grey.

    The content decides the format, never the suffix. EXIF orientation is applied. Transparency is
    laid on white. 16-bit greys keep their high byte. Of an animation the first frame counts.

    Raises:
        UnreadableImage: empty, truncated or no image at all; more pixels than Pillow's limit
            against decompression bombs; pixel types without a known range (32-bit float).
    """
    name = os.fspath(path)
    return decode_bytes(read_file(name), name, channels)


def read_file(path: str, root: Path | None = None) -> bytes:
    """Return the content of ``path``.

    Args:
        path: of the file.
        root: folder of the data set: where it is gone or empty, the file is not to blame.

    Raises:
        UnreadableImage: the file is missing, or may not be read.
        StorageError: the disk or the network that holds it is away, and stayed away.
    """
    try:
        return _content(path)
    except OSError as error:
        if is_away(error, path, root):
            return read_again(partial(_content, path), path, error)
        raise UnreadableImage(path, error.strerror or type(error).__name__) from error


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def decode_bytes(data: bytes, name: str, channels: int = 3) -> Tensor:
    """Return the encoded image ``data`` as `decode_image` does; ``name`` is for messages."""
    with naming(name), open_image(data) as image:
        return to_tensor(image, channels)


Name = str | Callable[[], str]
"""What an image is called in messages, or what makes it up when there is one to write."""


@contextmanager
def naming(name: Name) -> Iterator[None]:
    """Raise what Pillow raises as `UnreadableImage` of ``name``."""
    try:
        yield
    except UnreadableImage:
        raise
    except (
        Exception
    ) as error:  # Pillow's plugins raise anything: OSError, SyntaxError, struct.error
        raise UnreadableImage(name if isinstance(name, str) else name(), _reason(error)) from error


def to_tensor(image: Image.Image, channels: int = 3) -> Tensor:
    """Return the first frame of ``image`` as (C, h, w) uint8, as `decode_image` says."""
    pixels = np.array(_upright(image, channels))
    if channels == 1:
        return torch.from_numpy(pixels)[None]
    # Not made contiguous: torchvision resizes this channels-last view fastest.
    return torch.from_numpy(pixels).permute(2, 0, 1)


def max_pixels() -> float:
    """Return how many pixels an image may have."""
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else math.inf


def open_image(data: bytes) -> Image.Image:
    """Return the image of ``data`` with its header parsed and its pixels not yet decoded."""
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    return Image.open(io.BytesIO(data), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: Image.Image, channels: int) -> Image.Image:
    """Return the first frame, turned as EXIF says, in mode RGB (3 channels) or L (1)."""
    if image.mode in _SIXTEEN_BIT_MODES:
        image = _high_byte(image)
    elif image.mode == "F":
        raise ValueError("32-bit float pixels have no known range; save it with 8 bits a channel")
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB" if channels == 3 else "L")


def orientation(image: Image.Image) -> int:
    """Return how the stored pixels are turned, 1 (upright) to 8, as EXIF or XMP says."""
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if value in range(1, 9) else 1


def _high_byte(image: Image.Image) -> Image.Image:
    # convert("L") would clip everything above 255 to white.
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("32-bit integer pixels beyond 16 bits have no known range")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in any format Pillow may read here"
    if isinstance(error, Image.DecompressionBombError):
        size = re.search(r"\d+", str(error))
        return (
            f"too many pixels: {int(size[0]) if size else 0:,}, and more than {max_pixels():,} "
            "could exhaust the memory; if the image is meant to be so large, set FOVEA_MAX_PIXELS "
            "in the environment"
        )
    return str(error).rstrip(".") or type(error).__name__


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Return (..., c, h, w) uint8 ``images`` with ``channels`` (1 or 3) instead of c channels."""
    if images.shape[-3] == channels:
        return images
    return tvf.grayscale_to_rgb(images) if channels == 3 else tvf.rgb_to_grayscale(images)
