"""Folders of small noise images, each class around a colour of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331", "n01498041"]
DIGITS = [f"class{i}" for i in range(10)]


def make_data(root: Path) -> None:
    """Write ``imagenet`` (9 training images a class of 7) and ``cifar10`` (7 of 10)."""
    for name, classes, count, side in (("imagenet", WNIDS, 9, 72), ("cifar10", DIGITS, 7, 32)):
        rng = np.random.default_rng(0)
        for split, number in (("train", count), ("val", 2), ("test", 2)):
            for k, class_name in enumerate(classes):
                if (name, split) == ("cifar10", "val"):
                    continue  # cut from train
                folder = root / name / split / class_name
                folder.mkdir(parents=True)
                for i in range(number):
                    image = rng.integers(0, 200, (side, side, 3), dtype=np.uint8)
                    image[..., k % 3] += np.uint8(5 * k)
                    Image.fromarray(image).save(folder / f"{i}.png")
