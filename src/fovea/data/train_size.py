"""The side of training images, where it differs from evaluation's or grows with the epochs."""

from __future__ import annotations

from dataclasses import dataclass

from fovea.errors import FoveaError


@dataclass(frozen=True)
class TrainSize:
    """A side in pixels for each epoch.

    Objects look larger in random crops, so that training at about 0.8 of evaluation's side loses
    nothing (Touvron et al. 2019, "Fixing the train-test resolution discrepancy", arXiv 1906.06423).

    Attributes:
        size: None: evaluation's.
        start_size: progressive resolution: the side at the start, which grows to ``size``.
        grow: (first, last) epoch of growing. Up to the first it is ``start_size``, from the last on
            ``size``, in between linear in the epoch, to the nearest multiple of 32 that is not
            beyond either: the schedule of ffcv-imagenet (``get_resolution`` of its
            ``train_imagenet.py``).
    """

    size: int | None = None
    start_size: int | None = None
    grow: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.start_size is None) != (self.grow is None):
            raise FoveaError("augment.start_size and augment.grow go together: set both, or none.")
        if self.grow is not None and not 0 <= self.grow[0] < self.grow[1]:
            raise FoveaError(f"augment.grow={list(self.grow)} must be two rising epochs from 0 on.")
        for name, side in (("size", self.size), ("start_size", self.start_size)):
            if side is not None and side < 1:
                raise FoveaError(f"augment.{name}={side}: a side in pixels is at least 1.")

    @property
    def given(self) -> bool:
        """Whether it may differ from evaluation's."""
        return self.size is not None or self.start_size is not None

    def at(self, image_size: int, epoch: int) -> int:
        """Return the side in ``epoch``; ``image_size`` is evaluation's."""
        size = self.size or image_size
        if self.start_size is None or self.grow is None or epoch >= self.grow[1]:
            return size
        first, last = self.grow
        if epoch <= first:
            return self.start_size
        grown = self.start_size + (size - self.start_size) * (epoch - first) / (last - first)
        low, high = sorted((self.start_size, size))
        return min(max(round(grown / 32) * 32, low), high)

    def largest(self, image_size: int) -> int:
        """Return the largest side of any epoch; ``image_size`` is evaluation's."""
        return max(self.size or image_size, self.start_size or 0)

    def describe(self, image_size: int) -> str:
        """Return it in words; ``image_size`` is evaluation's."""
        size = str(self.size or image_size)
        if self.start_size is None or self.grow is None:
            return size
        return f"{self.start_size}, growing to {size} in epochs {self.grow[0]}-{self.grow[1]}"
