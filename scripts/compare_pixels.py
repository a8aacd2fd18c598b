"""Measure how near evaluation's pixels are to those of Pillow and torchvision.

    python scripts/compare_pixels.py photos        # any folder of images

Every image is decoded and resized by fovea, and by Pillow with torchvision's own antialiased
transforms; printed is the peak signal-to-noise ratio of the two, in decibels: a rounding error of
one level in every pixel is 48, of one pixel in a hundred 68.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from fovea.data import IMAGE_SUFFIXES, EvaluationView
from fovea.data.decoding import open_file
from fovea.types import Preprocessing

SIZES = ((224, 256), (160, 182), (64, 73))
"""Side of what the network sees, and the shorter side before the centre crop: 7/8 of it."""

IDENTICAL = 99.0
"""Decibels that stand for equality."""


def main() -> int:
    """Print a line for each size and interpolation and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, help="folder, looked through at any depth")
    root = parser.parse_args().root
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        print(f"compare_pixels: no images below {root}", file=sys.stderr)
        return 2
    print(f"{len(files)} images      5th percentile   median  lowest, dB")
    for (size, resize), mode in product(SIZES, ("bilinear", "bicubic")):
        low, middle, lowest = ratios(files, Preprocessing(size, resize=resize, interpolation=mode))
        print(f"{size:>4} pixels, {mode:<8} {low:14.1f} {middle:8.1f} {lowest:7.1f}")
    return 0


def ratios(files: list[Path], preprocessing: Preprocessing) -> tuple[float, float, float]:
    """Return 5th percentile, median and lowest signal-to-noise ratio over ``files``, in dB."""
    ours = EvaluationView(preprocessing)
    assert preprocessing.resize is not None
    theirs = v2.Compose(
        [
            v2.Resize(preprocessing.resize, InterpolationMode(preprocessing.interpolation)),
            v2.CenterCrop(preprocessing.image_size),
            v2.PILToTensor(),
        ]
    )
    found = []
    for file in files:
        with Image.open(file) as image:
            found.append(decibels(ours(open_file(file)), theirs(image.convert("RGB"))))
    return float(np.quantile(found, 0.05)), float(np.median(found)), min(found)


def decibels(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of two uint8 images."""
    error = ((one.double() - other.double()) ** 2).mean().item()
    return 10 * float(np.log10(255**2 / error)) if error else IDENTICAL


if __name__ == "__main__":
    sys.exit(main())
