"""Weather: snow, frost, fog, and a bright day. See `noise` for what a corruption takes."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from fovea.data.corruptions.blur import blurred_along, magnified
from fovea.data.corruptions.noise import Floats, Pixels
from fovea.errors import FoveaError

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of red, green and blue; ITU-R BT.601."""

_FROST = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""Those of the authors' six photographs that their code draws from."""


def snow(image: Pixels, fall: tuple[float, ...], rng: np.random.Generator) -> Floats:
    """Return ``image`` whitened, with flakes that were smeared as they fell.

    Args:
        image: (H, W, C) uint8.
        fall: mean and standard deviation of the noise that becomes flakes, its magnification, the
            threshold above which it is a flake, radius and sigma of the smear in pixels, and the
            share that is left of the image.
        rng: of the flakes and their direction.
    """
    mean, deviation, zoom, threshold, radius, sigma, kept = fall
    unit = (image / 255).astype(np.float32)
    flakes = magnified(rng.normal(mean, deviation, image.shape[:2])[..., None], zoom)
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
    flakes = (flakes * 255).astype(np.uint8).astype(np.float32)
    flakes = np.round(blurred_along(flakes, int(radius), sigma, rng.uniform(-135, -45))) / 255
    pale = np.maximum(unit, _grey(unit) * 1.5 + 0.5)
    return 255 * np.clip(kept * unit + (1 - kept) * pale + flakes + np.rot90(flakes, 2), 0, 1)


def _grey(image: Floats) -> Floats:
    """Return (H, W, 1) of an image (H, W, C)."""
    return image if image.shape[2] == 1 else (image @ _LUMA)[..., None]


def frost(image: Pixels, ice: tuple[float, float, float], rng: np.random.Generator) -> Floats:
    """Return ``image`` behind a random part of a photograph of frost.

    Args:
        image: (H, W, C) uint8.
        ice: weights of the image and of the frost, and the scale of the photograph.
        rng: of the photograph and its part.

    Raises:
        FoveaError: the photographs are not installed.
    """
    kept, added, scale = ice
    photo = _scaled_frost(_FROST[rng.integers(len(_FROST))], scale, *image.shape)
    rows, columns = (photo.shape[axis] - image.shape[axis] for axis in (0, 1))
    top, left = rng.integers(0, rows), rng.integers(0, columns)
    part = photo[top : top + image.shape[0], left : left + image.shape[1]]
    return np.clip(kept * image + added * part, 0, 255)


def frost_folder() -> Path:
    """Return where the authors' photographs of frost lie.

    Raises:
        FoveaError: the package that brings them is not installed.
    """
    found = find_spec("imagecorruptions")  # not imported: it would load numba and OpenCV
    if found is None or not found.submodule_search_locations:
        raise FoveaError(
            "The corruption 'frost' is made of photographs that a package brings: "
            "pip install 'fovea[corruptions]'. Or name the other corruptions, as in "
            "corruptions=[noise,blur,snow,fog,brightness,digital]"
        )
    return Path(next(iter(found.submodule_search_locations))) / "frost"


@cache
def _scaled_frost(name: str, scale: float, height: int, width: int, channels: int) -> Floats:
    """Return a photograph (h, w, channels) at ``scale``; larger where it would not cover an image.

    Each worker keeps those it has used: 4.2 MB at most for images of 224 pixels.
    """
    photo = Image.open(frost_folder() / name).convert("L" if channels == 1 else "RGB")
    pixels = np.array(photo).reshape(photo.height, photo.width, channels)
    scale = max(scale, (height + 1) / photo.height, (width + 1) / photo.width)
    if scale == 1:
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    # Not antialiased, as the authors resize it: what is fine in it stays crisp.
    size = (round(photo.height * scale), round(photo.width * scale))
    resized = interpolate(planes, size, mode="bilinear", align_corners=False)[0]
    return resized.round().byte().permute(1, 2, 0).numpy()


def fog(image: Pixels, haze: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Return ``image`` with a cloud over it, made as dim again as it was.

    Args:
        image: (H, W, C) uint8.
        haze: how much fog, and how much smoother it is from scale to scale.
        rng: of the cloud.
    """
    amount, decay = haze
    unit = image / 255
    height, width = image.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    cloud = plasma_fractal(side, decay, rng)[:height, :width, None]
    brightest = unit.max()
    return 255 * np.clip((unit + amount * cloud) * brightest / (brightest + amount), 0, 1)


def plasma_fractal(side: int, decay: float, rng: np.random.Generator) -> Floats:
    """Return a cloud (side, side) on [0, 1] by the diamond-square algorithm, tiling the plane.

    Args:
        side: in pixels, a power of two.
        decay: by how much the random part shrinks from step to step.
        rng: of the random part.
    """
    cloud = np.zeros((side, side))
    step, amplitude = side, 100.0

    def disturbed(total: Floats) -> Floats:
        # Of four neighbours; the amplitude counts twice, as in the code that made the data sets.
        return total / 4 + amplitude * rng.uniform(-amplitude, amplitude, total.shape)

    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        cloud[half::step, half::step] = disturbed(pairs + np.roll(pairs, -1, 1))
        centres = cloud[half::step, half::step]
        above = centres + np.roll(centres, 1, 0)
        beside = centres + np.roll(centres, 1, 1)
        cloud[::step, half::step] = disturbed(above + corners + np.roll(corners, -1, 1))
        cloud[half::step, ::step] = disturbed(beside + corners + np.roll(corners, -1, 0))
        step, amplitude = half, amplitude / decay
    cloud -= cloud.min()
    return cloud / cloud.max()


def brightness(image: Pixels, added: float, _rng: np.random.Generator) -> Floats:
    """Return ``image`` with ``added``, on the [0, 1] scale, to the value of its HSV colours."""
    unit = image / 255
    value = unit.max(axis=2, keepdims=True)
    brighter = np.clip(value + added, 0, 1)
    # Red, green and blue are proportional to the value at one hue and saturation; black is grey.
    ratio = np.divide(brighter, value, out=np.zeros_like(value), where=value > 0)
    return 255 * np.where(value > 0, unit * ratio, brighter)
