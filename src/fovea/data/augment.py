"""Random changes of training images: per image on the loader's side, per batch on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from fovea.data.images import evaluation_transform
from fovea.data.settings import check_choice
from fovea.errors import FoveaError
from fovea.types import Preprocessing

Crop = Literal["auto", "resized", "pad", "none"]
Policy = Literal["randaug", "trivialaug"]
BatchTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

SMALL_IMAGE = 64
"""Up to this side in pixels ``crop=auto`` pads and shifts; above it crops and resizes."""

_CROPS = ("auto", "resized", "pad", "none")
_POLICIES = ("randaug", "trivialaug")


class Augment:
    """What training does to images beyond evaluation's preprocessing.

    Per image, on uint8 tensors and in this order: crop, flip, rotation and shift, policy, erasing.
    Per batch, on the device, after normalisation: mixup or cutmix, one of both at random if both
    are on.

    Args:
        crop: ``resized`` is a random part of the image, resized to the square; ``pad`` the
            evaluation image, shifted by up to an eighth of its side; ``none`` the evaluation image;
            ``auto`` is ``resized`` for images above 64 pixels and ``pad`` up to there.
        scale: smallest and largest share of the image's area, for ``resized``.
        ratio: smallest and largest width/height, for ``resized``.
        flip: probability of mirroring, where the data set says that mirrored images keep their
            labels (``data.hflip``).
        rotate: up to so many degrees, either way.
        translate: up to this share of the side, each axis.
        policy: ``randaug`` (RandAugment, Cubuk et al. 2020, arXiv 1909.13719) or ``trivialaug``
            (TrivialAugmentWide, Mueller and Hutter 2021, arXiv 2103.10158), as in torchvision.
        magnitude: of RandAugment, 0 to 30.
        num_ops: RandAugment's operations an image.
        erase: probability of filling a random rectangle with the mean colour (random erasing,
            Zhong et al. 2020, arXiv 1708.04896).
        mixup: alpha of Beta(alpha, alpha); 0 for none (Zhang et al. 2018, arXiv 1710.09412).
        cutmix: alpha of Beta(alpha, alpha); 0 for none (Yun et al. 2019, arXiv 1905.04899).

    Raises:
        FoveaError: naming the key, for values outside their range.
    """

    def __init__(
        self,
        crop: Crop = "auto",
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        rotate: float = 0.0,
        translate: float = 0.0,
        policy: Policy | None = None,
        magnitude: int = 9,
        num_ops: int = 2,
        erase: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        self.crop = crop
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))
        self.flip = flip
        self.rotate = rotate
        self.translate = translate
        self.policy = policy
        self.magnitude = magnitude
        self.num_ops = num_ops
        self.erase = erase
        self.mixup = mixup
        self.cutmix = cutmix
        self._check()

    def _check(self) -> None:
        check_choice("augment.crop", self.crop, _CROPS)
        if self.policy is not None:
            check_choice("augment.policy", self.policy, _POLICIES)
        for key in ("flip", "erase", "translate"):
            _check_range(key, getattr(self, key), 0, 1)
        _check_range("magnitude", self.magnitude, 0, 30)
        _check_range("rotate", self.rotate, 0, 180)
        for key in ("mixup", "cutmix"):
            _check_range(key, getattr(self, key), 0, float("inf"))
        for key, largest in (("scale", 1.0), ("ratio", float("inf"))):
            low, high = getattr(self, key)
            if not 0 < low <= high <= largest:
                raise FoveaError(
                    f"augment.{key}=[{low}, {high}] must be two rising numbers above 0"
                    + (" and at most 1" if largest == 1 else "")
                )

    def resolved_crop(self, image_size: int) -> str:
        """Return what ``crop`` is for images of this side: ``auto`` decided."""
        if self.crop != "auto":
            return self.crop
        return "resized" if image_size > SMALL_IMAGE else "pad"

    def image_transform(self, preprocessing: Preprocessing, hflip: bool) -> v2.Transform:
        """Return the transform from any (C, h, w) uint8 image to (C, H, W) uint8 for training."""
        mode = InterpolationMode(preprocessing.interpolation)
        steps = self._crop_steps(preprocessing, mode)
        if hflip and self.flip > 0:
            steps.append(v2.RandomHorizontalFlip(self.flip))
        if self.rotate > 0 or self.translate > 0:
            shift = (self.translate, self.translate) if self.translate else None
            bilinear = InterpolationMode.BILINEAR
            steps.append(v2.RandomAffine(self.rotate, shift, interpolation=bilinear))
        if self.policy == "randaug":
            bilinear = InterpolationMode.BILINEAR
            steps.append(v2.RandAugment(self.num_ops, self.magnitude, interpolation=bilinear))
        elif self.policy == "trivialaug":
            steps.append(v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR))
        if self.erase > 0:
            # The mean colour: what 0 is after normalisation, as in torchvision's recipes.
            mean = [round(255 * value) for value in preprocessing.mean]
            steps.append(v2.RandomErasing(self.erase, value=mean))
        return v2.Compose(steps)

    def _crop_steps(
        self, preprocessing: Preprocessing, mode: InterpolationMode
    ) -> list[torch.nn.Module]:
        size = preprocessing.image_size
        crop = self.resolved_crop(size)
        if crop == "resized":
            resized = v2.RandomResizedCrop(
                size, self.scale, self.ratio, interpolation=mode, antialias=True
            )
            return [resized]
        steps: list[torch.nn.Module] = [evaluation_transform(preprocessing)]
        if crop == "pad":
            steps.append(v2.RandomCrop(size, padding=_padding(size)))
        return steps

    def batch_transform(self, num_classes: int) -> BatchTransform | None:
        """Return (images, labels) -> (images, targets (B, K) float), or None without mixing."""
        mixes: list[v2.Transform] = []
        if self.mixup > 0:
            mixes.append(v2.MixUp(alpha=self.mixup, num_classes=num_classes))
        if self.cutmix > 0:
            mixes.append(v2.CutMix(alpha=self.cutmix, num_classes=num_classes))
        if not mixes:
            return None
        return mixes[0] if len(mixes) == 1 else v2.RandomChoice(mixes)

    def describe(self, image_size: int, hflip: bool) -> str:
        """Return the steps in words, for the start summary."""
        crop = self.resolved_crop(image_size)
        low, high = self.scale
        words = {
            "resized": f"random crop of {low:g}-{high:g} of the area to {image_size}",
            "pad": f"pad {_padding(image_size)} and crop {image_size}",
            "none": "",
        }
        parts = [
            words[crop],
            f"flip {self.flip:g}" if hflip and self.flip else "",
            f"rotate {self.rotate:g} degrees" if self.rotate else "",
            f"shift {self.translate:g}" if self.translate else "",
            f"RandAugment({self.num_ops}, {self.magnitude})" if self.policy == "randaug" else "",
            "TrivialAugment" if self.policy == "trivialaug" else "",
            f"erase {self.erase:g}" if self.erase else "",
            f"mixup {self.mixup:g}" if self.mixup else "",
            f"cutmix {self.cutmix:g}" if self.cutmix else "",
        ]
        return ", ".join(part for part in parts if part) or "none"


def _padding(image_size: int) -> int:
    """Return an eighth of the side: the usual 4 pixels for 32."""
    return max(1, image_size // 8)


def _check_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        span = f"from {low:g} to {high:g}" if high != float("inf") else f"at least {low:g}"
        raise FoveaError(f"augment.{key}={value} must be {span}")
