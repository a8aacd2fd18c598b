"""Which part of a picture is seen, and at what size: of evaluation and of random crops."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from fovea.data.decoding import KEPT_REDUCTION, SCALES, Picture, TensorPicture
from fovea.data.draws import Draws
from fovea.data.images import MAX_ASPECT
from fovea.types import Preprocessing

_KERNELS: dict[InterpolationMode, Callable[..., Tensor]] = {
    InterpolationMode.BILINEAR: torch._C._nn._upsample_bilinear2d_aa,
    InterpolationMode.BICUBIC: torch._C._nn._upsample_bicubic2d_aa,
}
"""What ``torch.nn.functional.interpolate`` calls, which cannot be told where to write."""

Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""


class View(Protocol):
    """From a picture and the sample's seed to (C, H, W) uint8."""

    def __call__(self, picture: Picture, seed: int, place: Tensor | None = None, /) -> Tensor:
        """Return what is seen; ``place`` itself where it was written there at once."""
        ...


class PartView(ABC):
    """A part of a picture, resized: where it lies, and what becomes of its pixels.

    Attributes:
        target: (height, width) in pixels that the part is resized to, or more.
    """

    target: tuple[int, int]

    @abstractmethod
    def box(self, height: int, width: int, seed: int) -> Box:
        """Return the part of a picture of ``height`` x ``width`` pixels."""

    @abstractmethod
    def finish(self, pixels: Tensor, place: Tensor | None = None) -> Tensor:
        """Return (C, H, W) uint8 of the part's pixels (C, h, w) uint8, on their device.

        ``place`` itself, where it is given and the pixels could be written there at once.
        """

    def __call__(self, picture: Picture, seed: int = 0, place: Tensor | None = None, /) -> Tensor:
        """Return the view."""
        box = self.box(picture.height, picture.width, seed)
        return self.finish(picture.region(*box, self.target), place)


_TRIES = 10

_APART = 0x2545F4914F6CDD1D
"""Any odd number: keeps a crop's draws apart from those that the device makes of the same seed."""

_KERNEL_FOR_BYTES = torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}
"""Whether torch resizes uint8 with SIMD here; elsewhere torchvision takes the way over floats."""


class EvaluationView(PartView):
    """What evaluation sees: antialiased, (C, H, W) uint8.

    The shorter side is resized to ``preprocessing.resize`` pixels and the centre square cut out; or
    the whole image is resized to the square where ``resize`` is None.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.resize = preprocessing.resize
        shortest = preprocessing.resize or preprocessing.image_size
        self.target = (shortest, shortest)
        self.size = preprocessing.image_size
        self._mode = InterpolationMode(preprocessing.interpolation)

    def box(self, height: int, width: int, seed: int = 0) -> Box:
        """Return the whole picture, or the middle of a very long one; the seed changes nothing."""
        if self.resize is None:
            return 0, 0, height, width
        limit = MAX_ASPECT * min(height, width)
        h, w = min(height, limit), min(width, limit)
        return round((height - h) / 2), round((width - w) / 2), h, w  # as torchvision's centre crop

    def finish(self, pixels: Tensor, place: Tensor | None = None) -> Tensor:
        """Return the pixels resized, and their centre."""
        if self.resize is None:
            return self.resized(pixels, self.size, place)
        resized = self.resized(pixels, self.resize)
        centre: Tensor = tvf.center_crop_image(resized, [self.size, self.size])
        return centre

    def resized(self, pixels: Tensor, side: int, place: Tensor | None = None) -> Tensor:
        """Return the pixels with a shorter side of ``side``; a square where ``resize`` is None."""
        if self.resize is None:
            return _resized(pixels, side, side, self._mode, place)
        h, w = pixels.shape[-2:]
        shorter = min(h, w)
        return _resized(pixels, int(side * h / shorter), int(side * w / shorter), self._mode)


def _resized(
    pixels: Tensor, height: int, width: int, mode: InterpolationMode, place: Tensor | None = None
) -> Tensor:
    """Return (C, h, w) uint8 ``pixels`` resized as by ``v2.functional.resize``, antialiased.

    Where torchvision hands uint8 pixels to torch's own kernel they go there directly, in one piece
    and into ``place``: its checks are a tenth of the time of a small image, and the kernel takes
    twice as long over rows with gaps between them.
    """
    if (height, width) == pixels.shape[-2:]:
        return pixels
    if pixels.device.type != "cpu" or not _KERNEL_FOR_BYTES:
        return tvf.resize_image(pixels, [height, width], interpolation=mode, antialias=True)
    rows = np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0))  # half the time of a tensor's
    batch = torch.from_numpy(rows[None].transpose(0, 3, 1, 2))
    kernel = _KERNELS[mode]
    if place is None:
        return kernel(batch, (height, width), False)[0]
    kernel(batch, (height, width), False, out=place[None])
    return place


def whole_view(picture: Picture, _seed: int = 0, _place: Tensor | None = None, /) -> Tensor:
    """Return the picture as it is: one that was cut and resized before."""
    size = picture.height, picture.width
    return picture.region(0, 0, *size, target=size)


def evaluation_transform(preprocessing: Preprocessing) -> Callable[[Tensor], Tensor]:
    """Return `EvaluationView` of images that are tensors: (C, h, w) to (C, H, W), both uint8."""
    view = EvaluationView(preprocessing)
    return lambda image: view(TensorPicture(image))


class RandomResizedCrop(PartView):
    """A random part of a picture, resized to a square: (C, size, size) uint8, antialiased.

    The part is drawn from the picture's size, and only that part is decoded.

    Args:
        size: side in pixels.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height.
        interpolation: ``bilinear`` or ``bicubic``.

    Source: the Inception crop (Szegedy et al. 2015, arXiv 1409.4842, section 6) as drawn by
    ``torchvision.transforms.v2.RandomResizedCrop``.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        interpolation: str = "bilinear",
    ) -> None:
        self.size = size
        self.target = (size, size)
        self.scale = scale
        self.ratio = ratio
        self._log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
        self._mode = InterpolationMode(interpolation)

    def box(self, height: int, width: int, seed: int) -> Box:
        """Return the part that ``seed`` draws."""
        return self.draw(height, width, Draws(seed ^ _APART))

    def finish(self, pixels: Tensor, place: Tensor | None = None) -> Tensor:
        """Return the pixels resized to the square."""
        return _resized(pixels, self.size, self.size, self._mode, place)

    def draw(self, height: int, width: int, source: Draws) -> Box:
        """Return (top, left, height, width) of a part of ``height`` x ``width`` pixels."""
        for _ in range(_TRIES):
            area = height * width * source.uniform(*self.scale)
            ratio = math.exp(source.uniform(*self._log_ratio))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = source.randint(0, height - h), source.randint(0, width - w)
                return self._aligned(top, left, h, w)
        # None fits: the middle, cut to the nearest ratio.
        h = min(height, max(1, round(width / self.ratio[0])))
        w = min(width, max(1, round(height * self.ratio[1])))
        return (height - h) // 2, (width - w) // 2, h, w

    def _aligned(self, top: int, left: int, h: int, w: int) -> Box:
        """Return the part with its edges moved by less than 4 pixels where it is very large.

        So that it can be decoded at a reduced scale without being shifted.
        """
        coarsest = SCALES[0]
        if min(h, w) < min(SCALES) * KEPT_REDUCTION * self.size:
            return top, left, h, w
        return tuple(edge - edge % coarsest for edge in (top, left, h, w))  # type: ignore[return-value]
