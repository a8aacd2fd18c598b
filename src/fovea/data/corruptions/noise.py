"""Noise: Gaussian, shot and impulse.

In this module and those beside it a corruption takes an image (H, W, C) uint8, its constants from
`strengths` and a source of random numbers, and returns the image on [0, 255]: as floats, which may
lie outside, or as uint8. C is 1 or 3. Source of all: see `strengths`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]


def gaussian_noise(image: Pixels, scale: float, rng: np.random.Generator) -> Floats:
    """Return ``image`` with normal noise; ``scale``: standard deviation on the [0, 1] scale."""
    return 255 * np.clip(image / 255 + rng.normal(0, scale, image.shape), 0, 1)


def shot_noise(image: Pixels, photons: float, rng: np.random.Generator) -> Floats:
    """Return Poisson counts, where white would have ``photons`` on average."""
    return 255 * np.clip(rng.poisson(image / 255 * photons) / photons, 0, 1)


def impulse_noise(image: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Return ``image`` with a share ``amount`` of its values black or white, equally often.

    Each channel of a pixel on its own.
    """
    struck = rng.random(image.shape) <= amount
    white = rng.random(image.shape) <= 0.5
    return np.where(struck, np.where(white, 255, 0), image).astype(np.uint8)
