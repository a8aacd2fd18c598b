"""Random changes of training images: some per image by the loader, most per batch on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from fovea.data.batch_augment import cut_out, erase_rectangles, flip_and_shift, jitter_colour
from fovea.data.seeded_steps import SeededSteps
from fovea.data.settings import check_choice
from fovea.data.timm_policy import POLICIES, TimmPolicy, check_policy
from fovea.data.train_size import TrainSize
from fovea.data.views import EvaluationView, RandomResizedCrop, View, whole_view
from fovea.errors import FoveaError
from fovea.types import Preprocessing

Crop = Literal["auto", "resized", "pad", "none"]
BatchMix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

SMALL_IMAGE = 64
"""Up to this side in pixels ``crop=auto`` pads and shifts; above it crops and resizes."""

_CROPS = ("auto", "resized", "pad", "none")
_PADDING_MODES = {"zero": "constant", "reflect": "reflect"}
"""And what torchvision calls them."""


class Augment:
    """What training does to images beyond evaluation's preprocessing.

    Per image, by the loader, on uint8: resized crop, rotation and shift, policy. Per batch, on the
    device: flip, padded crop, colour, normalisation, erasing, cutout; then mixup or cutmix, one of
    both at random if both are on. A padded crop comes per image where rotation or policy follow it.

    Args:
        crop: ``resized`` is a random part of the image, resized to the square; ``pad`` the
            evaluation image, shifted by up to an eighth of its side; ``none`` the evaluation image;
            ``auto`` is ``resized`` for images above 64 pixels and ``pad`` up to there.
        scale: smallest and largest share of the image's area, for ``resized``.
        ratio: smallest and largest width/height, for ``resized``.
        flip: probability of mirroring, where the data set says that mirrored images keep their
            labels (``data.hflip``).
        alternate_flip: ``flip`` is of even epochs, counted from 0, and odd ones mirror the other
            images; see `alternating_flip`.
        padding: of ``pad``, in pixels; None: an eighth of the side.
        padding_mode: ``zero`` pads with black, ``reflect`` with the image mirrored at its edges.
        rotate: up to so many degrees, either way.
        translate: up to this share of the side, each axis.
        policy: ``randaug`` (RandAugment, Cubuk et al. 2020, arXiv 1909.13719) or ``trivialaug``
            (TrivialAugmentWide, Mueller and Hutter 2021, arXiv 2103.10158), as in torchvision; or
            timm's RandAugment in its own words, such as ``rand-m9-mstd0.5-inc1``: see `TimmPolicy`.
        magnitude: of RandAugment, 0 to 30.
        num_ops: RandAugment's operations an image.
        color_jitter: brightness, contrast and saturation change by a factor within 1 -/+ this.
        erase: probability of filling a random rectangle with the mean colour (random erasing,
            Zhong et al. 2020, arXiv 1708.04896).
        cutout: side in pixels of a square that is filled with the mean colour; 0 for none (cutout,
            DeVries and Taylor 2017, arXiv 1708.04552).
        mixup: alpha of Beta(alpha, alpha); 0 for none (Zhang et al. 2018, arXiv 1710.09412).
        cutmix: alpha of Beta(alpha, alpha); 0 for none (Yun et al. 2019, arXiv 1905.04899).
        size: side in pixels of training images, with ``resized`` alone; None: evaluation's. For
            it, ``start_size`` and ``grow`` see `TrainSize`.
        start_size: of the first epochs.
        grow: (first, last) epoch in which the side grows.

    Raises:
        FoveaError: naming the key, for values outside their range.
    """

    def __init__(
        self,
        crop: Crop = "auto",
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        alternate_flip: bool = False,
        padding: int | None = None,
        padding_mode: Literal["zero", "reflect"] = "zero",
        rotate: float = 0.0,
        translate: float = 0.0,
        policy: str | None = None,
        magnitude: int = 9,
        num_ops: int = 2,
        color_jitter: float = 0.0,
        erase: float = 0.0,
        cutout: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        size: int | None = None,
        start_size: int | None = None,
        grow: tuple[int, int] | None = None,
    ) -> None:
        self.crop = crop
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))
        self.flip = flip
        self.alternate_flip = alternate_flip
        self.padding = padding
        self.padding_mode = padding_mode
        self.rotate = rotate
        self.translate = translate
        self.policy = policy
        self.magnitude = magnitude
        self.num_ops = num_ops
        self.color_jitter = color_jitter
        self.erase = erase
        self.cutout = cutout
        self.mixup = mixup
        self.cutmix = cutmix
        epochs = None if grow is None else (int(grow[0]), int(grow[1]))
        self.train_size = TrainSize(size, start_size, epochs)
        self._check()

    def _check(self) -> None:
        check_choice("augment.crop", self.crop, _CROPS)
        check_choice("augment.padding_mode", self.padding_mode, tuple(_PADDING_MODES))
        if self.padding is not None and self.padding < 1:
            raise FoveaError(
                f"augment.padding={self.padding} must be at least 1; augment.crop=none"
            )
        if self.policy is not None:
            check_policy(self.policy)
        if self.train_size.given and self.crop not in ("auto", "resized"):
            raise FoveaError(
                f"augment.crop={self.crop}: only random resized crops have a size of their own. "
                "Set augment.crop=resized, or data.image_size for all images."
            )
        for key in ("flip", "erase", "translate"):
            _check_range(key, getattr(self, key), 0, 1)
        _check_range("magnitude", self.magnitude, 0, 30)
        _check_range("rotate", self.rotate, 0, 180)
        for key in ("mixup", "cutmix", "color_jitter", "cutout"):
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
        if self.train_size.given:
            return "resized"
        return "resized" if image_size > SMALL_IMAGE else "pad"

    @property
    def per_image(self) -> bool:
        """Whether the loader has more to do with an image than to cut it out."""
        return bool(self.rotate or self.translate or self.policy)

    def view(self, preprocessing: Preprocessing, held: bool = False, epoch: int = 0) -> View:
        """Return what the loader makes of a picture: (C, H, W) uint8.

        Args:
            preprocessing: of the network.
            held: the pictures are what evaluation sees already.
            epoch: counted from 0.
        """
        size = preprocessing.image_size
        crop: View = whole_view if held else EvaluationView(preprocessing)
        if self.resolved_crop(size) == "resized":
            mode = preprocessing.interpolation
            size = self.train_size.at(size, epoch)
            crop = RandomResizedCrop(size, self.scale, self.ratio, mode)
        if not self.per_image:
            return crop
        return SeededSteps(crop, v2.Compose(self._image_steps(size)))

    def at_epoch(
        self, preprocessing: Preprocessing, epoch: int
    ) -> tuple[View, tuple[int, int, int]]:
        """Return `view` in an epoch of random crops that grow, and the (C, H, W) that it gives.

        A function of the epoch alone, which the loader gets with each batch: the same on every
        rank, in every worker, and after a resume.
        """
        side = self.train_size.at(preprocessing.image_size, epoch)
        return self.view(preprocessing, epoch=epoch), (preprocessing.channels, side, side)

    def _image_steps(self, size: int) -> list[torch.nn.Module]:
        steps: list[torch.nn.Module] = []
        bilinear = InterpolationMode.BILINEAR
        if self.resolved_crop(size) == "pad":
            mode = _PADDING_MODES[self.padding_mode]
            steps.append(v2.RandomCrop(size, padding=self.padding_of(size), padding_mode=mode))
        if self.rotate > 0 or self.translate > 0:
            shift = (self.translate, self.translate) if self.translate else None
            steps.append(v2.RandomAffine(self.rotate, shift, interpolation=bilinear))
        if self.policy == "randaug":
            steps.append(v2.RandAugment(self.num_ops, self.magnitude, interpolation=bilinear))
        elif self.policy == "trivialaug":
            steps.append(v2.TrivialAugmentWide(interpolation=bilinear))
        elif self.policy is not None:
            steps.append(TimmPolicy(self.policy, size))
        return steps

    def on_device(
        self,
        images: Tensor,
        seeds: Tensor,
        preprocessing: Preprocessing,
        hflip: bool,
        mirrored: Tensor | None = None,
    ) -> Tensor:
        """Return a batch changed at random and normalised, (B, C, H, W) float32, channels_last.

        Args:
            images: (B, C, H, W) uint8 of `view`.
            seeds: (B,) int64 of `fovea.data.draws.sample_seeds`, on the same device.
            preprocessing: whose mean and std normalise.
            hflip: whether a mirrored image keeps its label.
            mirrored: (B,) bool, which images are mirrored where ``hflip`` holds, in place of
                ``flip``.
        """
        size = preprocessing.image_size
        padded = self.resolved_crop(size) == "pad" and not self.per_image
        flip: float | Tensor = self.flip if mirrored is None else mirrored
        if not hflip:
            flip = 0.0
        if padded or isinstance(flip, Tensor) or flip:
            padding = self.padding_of(size) if padded else 0
            reflect = self.padding_mode == "reflect"
            images = flip_and_shift(images, seeds, flip, padding, reflect)
        if self.color_jitter:
            images = jitter_colour(images.float() / 255, seeds, self.color_jitter) * 255
        images = preprocessing.normalize(images)
        if self.erase:
            images = erase_rectangles(images, seeds, self.erase)
        return cut_out(images, seeds, self.cutout) if self.cutout else images

    def batch_mix(self, num_classes: int) -> BatchMix | None:
        """Return (images, labels) -> (images, targets (B, K) float), or None without mixing."""
        mixes: list[v2.Transform] = []
        if self.mixup > 0:
            mixes.append(v2.MixUp(alpha=self.mixup, num_classes=num_classes))
        if self.cutmix > 0:
            mixes.append(v2.CutMix(alpha=self.cutmix, num_classes=num_classes))
        if not mixes:
            return None
        return mixes[0] if len(mixes) == 1 else v2.RandomChoice(mixes)

    def padding_of(self, image_size: int) -> int:
        """Return the pixels around images of this side: an eighth, the usual 4 for 32, if not set.

        Raises:
            FoveaError: there is not so much to reflect.
        """
        padding = max(1, image_size // 8) if self.padding is None else self.padding
        if self.padding_mode == "reflect" and padding >= image_size:
            raise FoveaError(
                f"augment.padding={padding}: images of {image_size} pixels have no more than "
                f"{image_size - 1} to reflect."
            )
        return padding

    def _describe_flip(self) -> str:
        if self.alternate_flip:
            return f"flip {self.flip:g}, in odd epochs the others"
        return f"flip {self.flip:g}" if self.flip else ""

    def describe(self, image_size: int, hflip: bool) -> str:
        """Return the steps in words, for the start summary."""
        crop = self.resolved_crop(image_size)
        low, high = self.scale
        words = {
            "resized": f"random crop of {low:g}-{high:g} of the area to "
            + self.train_size.describe(image_size),
            "pad": f"pad {self.padding_of(image_size)}"
            + (" by reflection" if self.padding_mode == "reflect" else "")
            + f" and crop {image_size}",
            "none": "",
        }
        parts = [
            words[crop],
            self._describe_flip() if hflip else "",
            f"rotate {self.rotate:g} degrees" if self.rotate else "",
            f"shift {self.translate:g}" if self.translate else "",
            f"RandAugment({self.num_ops}, {self.magnitude})" if self.policy == "randaug" else "",
            "TrivialAugment" if self.policy == "trivialaug" else "",
            f"timm's {self.policy}" if self.policy and self.policy not in POLICIES else "",
            f"colour {self.color_jitter:g}" if self.color_jitter else "",
            f"erase {self.erase:g}" if self.erase else "",
            f"cutout {self.cutout}" if self.cutout else "",
            f"mixup {self.mixup:g}" if self.mixup else "",
            f"cutmix {self.cutmix:g}" if self.cutmix else "",
        ]
        return ", ".join(part for part in parts if part) or "none"


def _check_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        span = f"from {low:g} to {high:g}" if high != float("inf") else f"at least {low:g}"
        raise FoveaError(f"augment.{key}={value} must be {span}")
