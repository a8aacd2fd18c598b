"""Which preprocessing holds: the user's, else the weights', else the data set's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from fovea.errors import FoveaError
from fovea.types import Interpolation, Preprocessing


@dataclass(frozen=True)
class PreprocessingChoice:
    """What the user set; None where not. Meanings as in `Preprocessing`.

    Attributes:
        crop_ratio: share of the resized image's shorter side that the centre crop keeps: the image
            is resized to ``round(image_size / crop_ratio)``.
    """

    image_size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    crop_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise FoveaError(f"data.image_size={self.image_size} must be at least 1 pixel")
        if self.channels not in (None, 1, 3):
            raise FoveaError(f"data.channels={self.channels} must be 1 (grey) or 3 (RGB)")
        modes = get_args(Interpolation)
        if self.interpolation is not None and self.interpolation not in modes:
            raise FoveaError(
                f"data.interpolation={self.interpolation} is not one of {', '.join(modes)}"
            )
        if self.crop_ratio is not None and not 0 < self.crop_ratio <= 1:
            raise FoveaError(
                f"data.crop_ratio={self.crop_ratio} must lie in (0, 1]: the crop cannot be larger "
                "than the image it is cut from. Type data.crop_ratio=0.875, or 1 for the whole "
                "shorter side."
            )
        if self.std is not None and min(self.std) <= 0:
            raise FoveaError(f"data.std={list(self.std)} must be above 0")

    def resolve(self, default: Preprocessing, weights: Preprocessing | None) -> Preprocessing:
        """Return what holds.

        Args:
            default: the data set's own. Its ``resize`` is a ratio to its ``image_size``, too.
            weights: what pre-trained weights expect, or None.
        """
        base = weights or default
        size = self.image_size or base.image_size
        channels = self.channels or base.channels
        resize = None
        if self.crop_ratio is not None:
            resize = round(size / self.crop_ratio)
        elif base.resize is not None:
            resize = round(size * base.resize / base.image_size)
        return Preprocessing(
            image_size=size,
            channels=channels,
            mean=_given("mean", self.mean, channels) or _spread(base.mean, channels),
            std=_given("std", self.std, channels) or _spread(base.std, channels),
            resize=resize,
            interpolation=self.interpolation or base.interpolation,
        )


def _given(key: str, values: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
    """Return the user's values, one a channel, or None where there are none."""
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise FoveaError(
            f"data.{key}={list(values)} has {len(values)} values for images of {channels} "
            f"channel(s); give {channels}, or one for all."
        )
    return _spread(values, channels)


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one value a channel: grey's repeated for RGB, RGB's averaged for grey."""
    if len(values) == channels:
        return tuple(values)
    if len(values) == 1:
        return tuple(values) * channels
    return (sum(values) / len(values),) * channels
