"""Several views of an image in evaluation: crops, sizes, mirrored copies (``views`` of eval)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from fovea.data.views import EvaluationView
from fovea.errors import FoveaError, did_you_mean
from fovea.types import Preprocessing, ViewAverage

ViewsName = Literal["center", "flip", "mirror_translate", "ten_crop", "multi_scale"]
Crops = Literal["center", "five"]
Averaged = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Views:
    """What is seen of each image; probabilities of all views, or logits, are averaged.

    Attributes:
        name: for the record; others of the same content are equal.
        sizes: of the shorter side before cropping, in pixels, one or several. Empty: that of the
            preprocessing.
        crops: ``center``, or ``five``: corners and centre of the image's central square.
        mirror: each crop is seen mirrored as well.
        translate: each crop is also seen shifted by so many pixels up and left, and down and right,
            its edges reflected; the two together weigh as much as the crop itself. 0: it is not.
        average: what is averaged.
    """

    name: str = field(default="center", compare=False)
    sizes: tuple[int, ...] = ()
    crops: Crops = "center"
    mirror: bool = False
    translate: int = 0
    average: Averaged = "probabilities"

    @property
    def num_crops(self) -> int:
        """How many pictures the loader cuts from an image: mirroring is left to the device."""
        return max(1, len(self.sizes)) * (5 if self.crops == "five" else 1)

    @property
    def count(self) -> int:
        """How many views there are of an image."""
        return self.num_crops * len(self._translated) * (2 if self.mirror else 1)

    @property
    def _translated(self) -> tuple[float, ...]:
        """Weight of a crop itself and of its shifted copies."""
        return (0.5, 0.25, 0.25) if self.translate else (1.0,)

    @property
    def view_average(self) -> ViewAverage:
        """How the views of an image, in the order of `split_views`, are averaged."""
        mirrored = 2 if self.mirror else 1
        share = [w / mirrored / self.num_crops for w in self._translated for _ in range(mirrored)]
        return ViewAverage(tuple(share * self.num_crops), self.average == "logits")

    @property
    def cropped_otherwise(self) -> bool:
        """Whether the loader cuts something else than the centre crop of the preprocessing."""
        return self.num_crops > 1 or len(self.sizes) > 0

    def describe(self) -> str:
        """Return the views in a few words, the same for the same views."""
        if self == CENTER:
            return "center"
        at = f" at {', '.join(map(str, self.sizes))} pixels" if self.sizes else ""
        mirrored = f", shifted by {self.translate} as well" if self.translate else ""
        mirrored += ", mirrored as well" if self.mirror else ""
        mirrored += ", mean of logits" if self.average == "logits" else ""
        crops = "center crop" if self.crops == "center" else "five crops"
        return f"{self.name}: {crops}{at}{mirrored}; {self.count} an image"


CENTER = Views()


def make_views(choice: str | Mapping[str, Any], preprocessing: Preprocessing, hflip: bool) -> Views:
    """Return the views that ``choice`` stands for.

    ``center`` is the one view of ordinary evaluation. ``flip`` adds its mirror image. ``ten_crop``
    is four corners and the centre of the image's central square, each mirrored as well (Krizhevsky
    et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", sections 2 and
    4.1; torchvision's TenCrop takes the corners of the whole image). ``multi_scale`` is the
    centre, mirrored as well, of images whose shorter side is 1, 8/7 and 9/7 times the crop: 224,
    256 and 288 pixels for one of 224 (Simonyan & Zisserman 2015, arXiv 1409.1556, section 4.2: the
    sizes S - 32, S and S + 32 for S = 256). Averaged are the softmax probabilities, as in both.
    ``mirror_translate`` is the centre and two copies shifted by a pixel, each mirrored as well, the
    logits being averaged and the centre having half the weight (Jordan 2024, arXiv 2404.00498,
    section 3.5; ``infer_mirror_translate`` of ``legacy/airbench94.py``).

    Args:
        choice: one of these, or some of ``sizes``, ``crops``, ``mirror``, ``translate`` and
            ``average`` of `Views`.
        preprocessing: of the evaluation.
        hflip: whether a mirrored image keeps its label.

    Raises:
        FoveaError: an unknown name, views that would all be the same, sizes below the crop's, a
            shift that is not less than the crop, or a mirrored view of images that must not be
            mirrored.
    """
    size = preprocessing.image_size
    named = {
        "center": CENTER,
        "flip": Views("flip", mirror=True),
        "mirror_translate": Views("mirror_translate", mirror=True, translate=1, average="logits"),
        "ten_crop": Views("ten_crop", crops="five", mirror=True),
        "multi_scale": Views("multi_scale", (size, round(size * 8 / 7), round(size * 9 / 7)),
                             mirror=True),
    }  # fmt: skip
    if isinstance(choice, str) and choice not in named:
        known = get_args(ViewsName)
        raise FoveaError(
            f"views={choice} is not one of {', '.join(known)}.{did_you_mean(choice, known)}"
        )
    usual = preprocessing.resize or size
    if isinstance(choice, str):
        views = named[choice]
    else:
        own = _own(choice, usual)
        views = next((view for view in named.values() if view == own), own)
    smallest = min(views.sizes, default=usual)
    if smallest < size:
        raise FoveaError(
            f"views: images of {smallest} pixels are smaller than the crop of {size} pixels. Give "
            f"views.sizes from {size} on."
        )
    if views.crops == "five" and max(views.sizes, default=smallest) == size:
        raise FoveaError(
            f"views: five crops of {size} pixels out of images of {size} are all the same. Resize "
            "them to more than is cut out: data.crop_ratio=0.875"
        )
    if not 0 <= views.translate < size:
        raise FoveaError(
            f"views.translate={views.translate}: a crop of {size} pixels can be shifted by 0 to "
            f"{size - 1}."
        )
    if views.mirror and not hflip:
        raise FoveaError(
            f"views={views.name} mirrors the images, and data.hflip=false says that a mirrored one "
            "does not keep its label. Take views=center, or data.hflip=true if it does."
        )
    return views


def _own(choice: Mapping[str, Any], usual: int) -> Views:
    """Return the views of ``choice``, written as those of a name are; ``usual`` is the size."""
    own = Views(**{**choice, "name": "own"})
    sizes = tuple(sorted(own.sizes))
    return replace(own, sizes=() if sizes == (usual,) else sizes)


class SeveralViews(EvaluationView):
    """The crops that `Views` describes, behind each other: (crops * C, H, W) uint8.

    Args:
        preprocessing: of the evaluation.
        views: whose mirrored copies are left out here.
    """

    def __init__(self, preprocessing: Preprocessing, views: Views) -> None:
        super().__init__(preprocessing)
        self.sizes = views.sizes or (self.target[0],)
        self.crops = views.crops
        self.target = (max(self.sizes), max(self.sizes))

    def finish(self, pixels: Tensor, place: Tensor | None = None) -> Tensor:
        """Return the crops of the pixels resized to each size."""
        wanted = [self.size, self.size]
        found: list[Tensor] = []
        for side in self.sizes:
            resized = self.resized(pixels, side)
            if self.crops == "five":
                square = tvf.center_crop_image(resized, [side, side])
                found += tvf.five_crop_image(square, wanted)
            else:
                found.append(tvf.center_crop_image(resized, wanted))
        return torch.cat(found)


def split_views(images: Tensor, views: Views) -> Tensor:
    """Return (B * V, C, H, W): the V views of each image in turn.

    Args:
        images: (B, crops * C, H, W) as `SeveralViews` cuts them.
        views: V of them, mirrored ones included.
    """
    if views == CENTER:
        return images
    single = images.unflatten(1, (views.num_crops, -1)).flatten(0, 1)
    if views.translate:
        single = torch.stack([single, *_translated(single, views.translate)], 1).flatten(0, 1)
    return torch.stack([single, single.flip(-1)], 1).flatten(0, 1) if views.mirror else single


def _translated(images: Tensor, pixels: int) -> list[Tensor]:
    """Return the windows up and left, and down and right, of images with reflected edges."""
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (pixels,) * 4, "reflect")
    return [padded[..., at : at + height, at : at + width] for at in (0, 2 * pixels)]
