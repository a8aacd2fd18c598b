"""A sheet of pictures, each between some lines above and its name below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from fovea.evaluation.figures import FAINT, INK, new_figure, shorten

_DPI = 120
_SIDE = 220
"""Of the square a picture is fitted into, in pixels."""
_GAP, _LINE, _TITLE, _NARROWEST = 14, 16, 36, 540
"""Between pictures, a line of text, the title above all, the least width, in pixels."""
_COLUMNS = 5
_CRISP = 3
"""Enlarged this many times or more, pixels stay visible as squares."""


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        index: of the sample.
        lines: texts with their colours, above the picture.
        name: below it.
    """

    index: int
    lines: Sequence[tuple[str, str]]
    name: str


def plot_sheet(
    tiles: Sequence[Tile],
    images_of: Callable[[int], Tensor],
    path: Path | str,
    title: str,
    room: int = _SIDE,
) -> None:
    """Draw ``tiles`` in rows of up to five.

    Args:
        tiles: may be none; the title then stands alone.
        images_of: gives the (C, h, w) uint8 image of a sample by its index, C 1 or 3. What it
            raises is written in the picture's place.
        path: of the PNG to write.
        title: above all.
        room: pixels in height that the pictures need, if all are wider than high.
    """
    columns = min(_COLUMNS, max(1, math.ceil(math.sqrt(len(tiles)))))
    above = _LINE * max((len(tile.lines) for tile in tiles), default=0)
    step = above + room + 2 * _LINE
    width = max(_NARROWEST, columns * (_SIDE + _GAP) + _GAP)
    height = _TITLE + math.ceil(len(tiles) / columns) * step
    indent = (width - columns * (_SIDE + _GAP) + _GAP) // 2
    canvas = torch.full((height, width, 3), 255, dtype=torch.uint8)
    with new_figure(path, width / _DPI, height / _DPI, _DPI) as figure:
        figure.set_layout_engine("none")
        _write(figure, width / 2, 10, title, size=10, weight="bold")
        for number, tile in enumerate(tiles):
            left = indent + number % columns * (_SIDE + _GAP)
            top = _TITLE + number // columns * step + above
            bottom = top + _draw(figure, canvas, tile, images_of, left, top)
            middle = left + _SIDE / 2
            for i, (text, colour) in enumerate(reversed(tile.lines)):
                _write(figure, middle, top - (i + 1) * _LINE, text, size=8, color=colour)
            _write(figure, middle, bottom + 3, shorten(tile.name, 34), size=6, color=FAINT)
        # One image for all: an axes a picture takes three times as long.
        figure.figimage(canvas.numpy(), origin="upper", zorder=-1)


def _draw(
    figure: Figure,
    canvas: Tensor,
    tile: Tile,
    images_of: Callable[[int], Tensor],
    left: int,
    top: int,
) -> int:
    """Put the picture into ``canvas``, or why there is none into ``figure``; return its height."""
    try:
        picture = _fitted(images_of(tile.index))
    except Exception as error:  # a picture that has gone does not spoil the sheet
        text = "\n".join(textwrap.wrap(shorten(str(error) or type(error).__name__, 120), 30))
        _write(figure, left + _SIDE / 2, top + _SIDE / 3, text, size=6, color=INK)
        return _SIDE
    height, width = picture.shape[:2]
    left += (_SIDE - width) // 2
    canvas[top : top + height, left : left + width] = picture
    return height


def _write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write ``text`` centred at ``x``, its upper edge ``y`` pixels below that of the figure."""
    width, height = figure.get_size_inches() * _DPI
    figure.text(x / width, 1 - y / height, text, ha="center", va="top", **style)


def _fitted(image: Tensor) -> Tensor:
    """Return ``image`` (C, h, w) as (h', w', 3) uint8 with a longer side of ``_SIDE``."""
    scale = _SIDE / max(image.shape[-2:])
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    mode = transforms.InterpolationMode
    how = mode.NEAREST if scale >= _CRISP else mode.BILINEAR
    image = transforms.resize(image, size, interpolation=how, antialias=True)
    return image.expand(3, -1, -1).movedim(0, -1)
