"""Scikit-learn's handwritten digits: real images that come with a wheel."""

from __future__ import annotations

from typing import Any

import torch

from fovea.data.module import ImageDataModule
from fovea.data.sources import MemorySource
from fovea.data.splits import Found, Split
from fovea.types import Preprocessing

MEAN, STD = 0.3053, 0.3760
"""Of all 1797 images on the [0, 1] scale."""


class DigitsDataModule(ImageDataModule):
    """1797 grey images of 8 x 8 pixels in 10 classes; train, val and test are cut by seed.

    Source: scikit-learn's ``load_digits``, a copy of the test part of UCI's "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak 1998). Its 17 grey levels 0..16 become 0..255.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)

    def _find(self) -> Found:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        split = Split.whole(MemorySource(images, "digits"), labels)
        return Found(
            class_names=[str(name) for name in digits.target_names],
            splits={"train": split},
            undivided=True,
            layout="scikit-learn digits",
        )

    def _default_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=8, channels=1, mean=(MEAN,), std=(STD,), resize=8)
