"""What passes between data, models and tasks, so that none of them needs to import another.

Shape legend, used in every docstring of fovea: B batch, C channels, H/W height and width in
pixels, K classes, F features, N samples of a split.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PADDING_INDEX = -1
"""Index of a sample that only fills up a rank's last evaluation batch: never counted."""


def unreadable_index(index: int) -> int:
    """Encode in the index of a sample that file ``index`` could not be read (see `Batch`)."""
    return -2 - index


class ViewAverage(NamedTuple):
    """How what is said of an image's views becomes one.

    Attributes:
        weights: (V,) of the views, their sum 1.
        logits: averaged are the logits, not the probabilities.
    """

    weights: tuple[float, ...]
    logits: bool = False


class Batch(NamedTuple):
    """What a data loader yields and what a task receives.

    Attributes:
        images: (B, C, H, W) uint8 from the loader; float, normalised, channels_last on the device.
            In evaluation with several views of each image: (B, crops * C, H, W) from the loader,
            (B * V, C, H, W) on the device, the V views of an image in turn.
        labels: (B,) int64 in [0, K). A task for unlabelled images gets zeros.
        indices: (B,) int64. ``i >= 0`` is the i-th sample of the split. ``-1`` is padding, there
            so that every rank makes the same number of evaluation steps. ``-2 - i`` says that file
            ``i`` could not be read: in training another sample with its own label stands in its
            place, in evaluation the entry is blank. Evaluation counts entries with
            ``indices >= 0`` and no others.
        targets: (B, K) float soft labels after mixup or cutmix, else None.
        seeds: (B,) int64, from which random changes on the device are drawn; None in evaluation.
        average: of the V views of each image; None where there is one.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None
    seeds: Tensor | None = None
    average: ViewAverage | None = None


Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the tensor a network evaluates: the part that must never differ.

    Attributes:
        image_size: side in pixels of the square the network sees.
        channels: 1 (grey) or 3 (RGB).
        mean: per channel, on the [0, 1] scale.
        std: per channel, on the [0, 1] scale.
        resize: length of the shorter side before the centre crop, in pixels. None: the whole image
            is resized to the square, without a crop.
        interpolation: always antialiased.
    """

    image_size: int
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: int | None = None
    interpolation: Interpolation = "bilinear"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        return self.channels, self.image_size, self.image_size

    def normalize(self, images: Tensor) -> Tensor:
        """Return (..., C, H, W) ``images`` on [0, 255] as float32: on [0, 1], less mean, over std.

        A channels_last batch stays so.
        """
        rows = images.movedim(-3, -1)
        # Whole rows against rows of repeated constants: on a CPU twenty times as fast as three
        # constants against pixels whose channels lie side by side.
        width = rows.shape[-2] if rows.is_contiguous() else 1
        scale, offset = _scale_and_offset(self.mean, self.std, width, images.device)
        if width == 1:
            images = images.to(torch.float32, copy=True)
            return images.mul_(scale.view(-1, 1, 1)).add_(offset.view(-1, 1, 1))
        flat = rows.flatten(-2).to(torch.float32, copy=True).mul_(scale).add_(offset)
        return flat.view(rows.shape).movedim(-1, -3)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types only, fit for JSON and for a ``weights_only`` checkpoint."""
        fields = asdict(self)
        return {**fields, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """Return what `to_dict` wrote."""
        return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


@cache
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return what normalises a row of ``width`` pixels on [0, 255], (width * C,) float32 each."""
    means, stds = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    return (1 / (255 * stds)).repeat(width), (-means / stds).repeat(width)
