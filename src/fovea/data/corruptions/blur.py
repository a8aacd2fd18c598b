"""Blur: defocus, frosted glass, motion and zoom. See `noise` for what a corruption takes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.signal import oaconvolve
from torch.nn.functional import interpolate

from fovea.data.corruptions.noise import Floats, Pixels


def defocus_blur(image: Pixels, optics: tuple[float, float], _rng: np.random.Generator) -> Floats:
    """Return ``image`` convolved with a disk, mirrored at the edges.

    Args:
        image: (H, W, C) uint8.
        optics: radius of the disk in pixels, and sigma of the blur that smooths its edge.
        _rng: not used.
    """
    kernel = _disk(*optics)
    margin = len(kernel) // 2
    around = np.pad(image / 255, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    blurred = oaconvolve(around, kernel[..., None], mode="valid", axes=(0, 1))
    return 255 * np.clip(blurred, 0, 1)


def _disk(radius: float, sigma: float) -> Floats:
    """Return a disk (n, n) of sum 1, its edge smoothed: n is 17 at least."""
    reach = np.arange(-max(8, math.ceil(radius)), max(8, math.ceil(radius)) + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    taps = np.arange(3) - 1 if radius <= 8 else np.arange(5) - 2
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        disk = correlate1d(disk, weights, axis, mode="mirror")
    return disk


def glass_blur(image: Pixels, glass: tuple[float, int, int], rng: np.random.Generator) -> Floats:
    """Return ``image`` blurred, its pixels displaced, and blurred again.

    Each pixel is overwritten by one near it, from the bottom right on, so that what was overwritten
    before is passed on. (The paper says that the two are swapped; the code that made the published
    sets copies, since both sides of its swap are views of one array.)

    Args:
        image: (H, W, C) uint8.
        glass: sigma in pixels, the largest displacement in pixels, and how many times.
        rng: of the displacements.
    """
    sigma, reach, times = glass
    pixels = (_smoothed(image / 255, sigma) * 255).astype(np.uint8)
    height, width = image.shape[:2]
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    for _ in range(times):
        # Drawn as the authors do: pixel after pixel, first the column's.
        moves = rng.integers(-reach, reach, (len(rows), len(columns), 2))
        taken = np.arange(height * width)
        here = (rows[:, None] * width + columns).ravel()
        taken[here] += (moves[..., 1] * width + moves[..., 0]).ravel()
        pixels = _copied(pixels, taken, here)
    return 255 * np.clip(_smoothed(pixels / 255, sigma), 0, 1)


def _copied(pixels: Pixels, taken: NDArray[np.int64], here: NDArray[np.int64]) -> Pixels:
    """Return ``pixels`` after the pixels ``here`` have, one after the other, been overwritten.

    Args:
        pixels: (H, W, C).
        taken: (H * W,) from where each pixel is overwritten.
        here: in the order of overwriting.
    """
    turn = np.full(len(taken), len(here))
    turn[here] = np.arange(len(here))
    # A pixel that was overwritten before passes on what it got itself: followed to its source, in
    # steps that double.
    earlier = turn[taken] < turn
    origin = np.where(earlier, taken, np.arange(len(taken)))
    while not np.array_equal(further := origin[origin], origin):
        origin = further
    return pixels.reshape(len(taken), -1)[taken[origin]].reshape(pixels.shape)


def _smoothed(image: Floats, sigma: float) -> Floats:
    """Return (H, W, C) under a Gaussian of ``sigma`` pixels."""
    return gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4)


def motion_blur(image: Pixels, motion: tuple[int, float], rng: np.random.Generator) -> Floats:
    """Return ``image`` blurred along a random direction within 45 degrees of the horizontal.

    Args:
        image: (H, W, C) uint8.
        motion: radius and sigma of the blur in pixels.
        rng: of the direction.
    """
    return np.round(blurred_along(image.astype(np.float32), *motion, rng.uniform(-45, 45)))


def blurred_along(image: Floats, radius: int, sigma: float, angle: float) -> Floats:
    """Return ``image`` (H, W, C) smeared to one side, by half of a Gaussian.

    Args:
        image: floats of any range.
        radius: in pixels; 2 * radius + 1 pixels are taken together.
        sigma: of the Gaussian, in pixels.
        angle: degrees, clockwise from the right.

    Source: ImageMagick's ``MotionBlurImage``, with its nearest pixels, and the edge's beyond it.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    columns = np.ceil(steps * across - 0.5).astype(int)
    rows = np.ceil(steps * down - 0.5).astype(int)
    reach = 2 * radius + 1
    around = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = image.shape[:2]
    total = np.zeros(image.shape, dtype=np.float32)
    for weight, row, column in zip(weights.astype(np.float32), rows, columns, strict=True):
        top, left = reach + row, reach + column
        total += weight * around[top : top + height, left : left + width]
    return total


def zoom_blur(image: Pixels, factors: Iterable[float], _rng: np.random.Generator) -> Floats:
    """Return the mean of ``image`` and of itself magnified by each of ``factors``."""
    unit = (image / 255).astype(np.float32)
    zoomed = [magnified(unit, factor) for factor in factors]
    return 255 * np.clip((unit + sum(zoomed)) / (len(zoomed) + 1), 0, 1)


def magnified(image: Floats, factor: float) -> Floats:
    """Return the centre of ``image`` (H, W, C), magnified to its size; bilinear."""
    sides = image.shape[:2]
    parts = [math.ceil(side / factor) for side in sides]
    firsts = [(side - part) // 2 for side, part in zip(sides, parts, strict=True)]
    (top, left), (rows, columns) = firsts, parts
    centre = torch.from_numpy(image[top : top + rows, left : left + columns].transpose(2, 0, 1))
    # As scipy.ndimage.zoom does it, which takes many times as long.
    size = [round(part * factor) for part in parts]
    large = interpolate(centre[None], size, mode="bilinear", align_corners=True)[0]
    top, left = ((length - side) // 2 for length, side in zip(size, sides, strict=True))
    return large.permute(1, 2, 0).numpy()[top : top + sides[0], left : left + sides[1]]
