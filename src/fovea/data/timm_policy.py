"""timm's RandAugment, which differs from torchvision's in its operations, strengths and chances."""

from __future__ import annotations

import random
import re

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tvf

from fovea.data.settings import check_choice
from fovea.types import IMAGENET_MEAN

POLICIES = ("randaug", "trivialaug")
_TIMM = r"rand(-(m\d+|n\d+|p[\d.]+|mstd[\d.]+|mmax\d+|inc[01]))+"


class TimmPolicy(nn.Module):
    """timm's RandAugment of (C, H, W) uint8 images, C = 3 (grey ones pass through RGB).

    Its random numbers are those of ``random`` and NumPy; both are seeded from torch's generator for
    the image, and put back.

    Args:
        words: as timm writes it: ``rand-m9-mstd0.5-inc1`` is magnitude 9 of 10, varied by a normal
            deviation of 0.5, with operations that grow stronger with it; 2 operations an image,
            each made with a chance of 0.5.
        image_size: side in pixels; 0.45 of it is the furthest shift, as in timm's training.
    """

    def __init__(self, words: str, image_size: int) -> None:
        super().__init__()
        fill = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
        settings = {"translate_const": int(image_size * 0.45), "img_mean": fill}
        self._augment = rand_augment_transform(words, settings)

    def forward(self, image: Tensor) -> Tensor:
        """Return the image changed."""
        before, before_numpy = random.getstate(), np.random.get_state()
        seed = int(torch.randint(2**32, ()))
        try:
            random.seed(seed)
            np.random.seed(seed)
            picture = tvf.to_pil_image(image.contiguous()).convert("RGB")
            changed: Tensor = tvf.pil_to_tensor(self._augment(picture))
        finally:
            random.setstate(before)
            np.random.set_state(before_numpy)
        return changed if len(image) == 3 else changed[:1]


def check_policy(policy: str) -> None:
    """Raise a `FoveaError` unless ``policy`` is one of torchvision's or in the words of timm's."""
    if not re.fullmatch(_TIMM, policy):
        check_choice("augment.policy", policy, (*POLICIES, "rand-m9-mstd0.5-inc1"))
