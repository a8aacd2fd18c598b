"""Digital: contrast, elastic deformation, pixelation, JPEG. See `noise` for what one takes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from fovea.data.corruptions.noise import Floats, Pixels


def contrast(image: Pixels, kept: float, _rng: np.random.Generator) -> Floats:
    """Return ``image`` with a share ``kept`` of its distance from each channel's mean."""
    unit = image / 255
    mean = unit.mean(axis=(0, 1), keepdims=True)
    return 255 * np.clip((unit - mean) * kept + mean, 0, 1)


def elastic_transform(
    image: Pixels, shares: tuple[float, float, float], rng: np.random.Generator
) -> Floats:
    """Return ``image`` after a random affine map and a smooth random displacement.

    Args:
        image: (H, W, C) uint8.
        shares: of the shorter side: the displacement's factor, its smoothness (sigma), and the
            most that a corner of the affine map moves.
        rng: of both.
    """
    height, width = image.shape[:2]
    factor, sigma, corner = (share * min(height, width) for share in shares)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    to_source = _random_affine(height, width, corner, rng)
    sources = np.einsum("ij,jhw->ihw", to_source, np.stack([columns, rows, np.ones_like(rows)]))
    warped = _sampled(image / 255, sources[1], sources[0], "mirror")

    def displacement() -> Floats:
        noise = rng.uniform(-1, 1, (height, width))
        return gaussian_filter(noise, sigma, mode="reflect", truncate=3) * factor

    across, down = displacement(), displacement()
    return 255 * np.clip(_sampled(warped, rows + down, columns + across, "reflect"), 0, 1)


def _random_affine(height: int, width: int, most: float, rng: np.random.Generator) -> Floats:
    """Return (2, 3): from (x, y, 1) of the result to (x, y) of the image."""
    centre, arm = np.array([width // 2, height // 2]), min(height, width) // 3
    before = centre + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + rng.uniform(-most, most, before.shape)
    ones = np.ones((3, 1))
    return np.linalg.solve(np.hstack([after, ones]), before).T


def _sampled(image: Floats, rows: Floats, columns: Floats, mode: str) -> Floats:
    """Return (H, W, C): ``image`` at the given places, bilinear; ``mode`` beyond its edges."""
    planes = [
        map_coordinates(image[..., channel], [rows, columns], order=1, mode=mode)
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


def pixelate(image: Pixels, scale: float, _rng: np.random.Generator) -> Pixels:
    """Return ``image`` reduced to ``scale`` of its sides, in boxes, and enlarged again."""
    height, width = image.shape[:2]
    small = as_picture(image).resize(
        (int(width * scale), int(height * scale)), Image.Resampling.BOX
    )
    return _as_pixels(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image: Pixels, quality: int, _rng: np.random.Generator) -> Pixels:
    """Return ``image`` after storing it as a JPEG of ``quality`` (Pillow's, 1 to 95)."""
    file = BytesIO()
    as_picture(image).save(file, "JPEG", quality=quality)
    return _as_pixels(Image.open(file))


def as_picture(image: Pixels) -> Image.Image:
    """Return an image (H, W, C) as Pillow's."""
    return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def _as_pixels(picture: Image.Image) -> Pixels:
    pixels = np.array(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]
