"""A sheet of images as the network gets them, each under its label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fovea.evaluation.figures import INK, new_figure, shorten
from fovea.types import Batch, Preprocessing

TILE = 128
"""Side of a picture on the sheet in pixels; the gap between two is for two lines of text."""

_GAP_X, _GAP_Y, _DPI = 12, 34, 120
_COLUMNS = 8
_NAME = 18
_LEAST_SHARE = 0.005
"""Of a mixed label: what would be shown as 0.00 is left out."""


def denormalized(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return (B, C, H, W) normalised floats as (B, C, H, W) uint8 on the CPU.

    What augmentation took beyond black or white is shown as black or white.
    """
    mean, std = (
        torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    images = images.detach().to("cpu", torch.float32)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def titles(batch: Batch, class_names: Sequence[str]) -> list[str]:
    """Return the label of each image in words; of a mixed one ``cat 0.7 / dog 0.3``."""
    if batch.targets is None:
        return [shorten(class_names[label], 2 * _NAME) for label in batch.labels.tolist()]
    shares, classes = batch.targets.detach().cpu().sort(dim=1, descending=True, stable=True)
    return [
        _mixed([(s, class_names[k]) for s, k in zip(row, order, strict=True) if s >= _LEAST_SHARE])
        for row, order in zip(shares.tolist(), classes.tolist(), strict=True)
    ]


def _mixed(parts: list[tuple[float, str]]) -> str:
    if len(parts) == 1:
        return shorten(parts[0][1], 2 * _NAME)
    words = [f"{shorten(name, _NAME - 5)} {share:.2g}" for share, name in parts]
    return (" /\n" if len(" / ".join(words)) > _NAME else " / ").join(words)


def draw_sheet(images: Tensor, labels: Sequence[str], heading: str, path: Path) -> None:
    """Write a PNG of ``images`` (N, C, H, W) uint8, N >= 1, in rows, each under its label."""
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = columns * (TILE + _GAP_X) + _GAP_X, rows * (TILE + _GAP_Y) + _GAP_Y
    canvas = torch.full((height, width, 3), 255, dtype=torch.uint8)
    places = [
        (_GAP_Y + i // columns * (TILE + _GAP_Y) + 20, _GAP_X + i % columns * (TILE + _GAP_X))
        for i in range(len(images))
    ]
    for image, (top, left) in zip(images, places, strict=True):
        canvas[top : top + TILE, left : left + TILE] = _tile(image)
    # One picture, not one for each image: many small ones take matplotlib seconds.
    with new_figure(path, width / _DPI, height / _DPI, dpi=_DPI) as figure:
        figure.set_layout_engine("none")
        figure.figimage(canvas.numpy(), origin="upper")
        figure.text(_GAP_X / width, 1 - 16 / height, heading, weight="bold", va="center")
        for label, (top, left) in zip(labels, places, strict=True):
            x, y = (left + TILE / 2) / width, 1 - (top - 3) / height
            figure.text(x, y, label, size=6, ha="center", va="bottom", color=INK, linespacing=1.0)


def _tile(image: Tensor) -> Tensor:
    """Return ``image`` (C, H, W) as (TILE, TILE, 3); small ones keep their pixels visible."""
    smooth = image.shape[-1] > TILE
    mode = transforms.InterpolationMode.BILINEAR if smooth else transforms.InterpolationMode.NEAREST
    image = transforms.resize(image, [TILE, TILE], interpolation=mode, antialias=smooth)
    return image.expand(3, -1, -1).permute(1, 2, 0)
