"""Pictures that compress and resize as photographs do."""

import numpy as np
from PIL import Image


def photo(height, width, seed=0):
    """Return a picture with edges, gradients and grain, as photographs have."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((a * x + b * y) / 9) for a, b in random.normal(size=(3, 2))]
    pixels = 128 + 60 * np.stack(waves, 2) + random.normal(scale=6, size=(height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = random.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
