"""Random changes of whole batches, drawn for each image, on the device where the batch lies.

Pure functions of the images and of each sample's seed. On the CPU the shifted windows are copied as
slices, which is several times faster there than the indexing that a GPU wants; the pixels are the
same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fovea.data.draws import uniform

# Which draw of a sample serves what. Never renumber: a run could not be repeated.
_FLIP, _SHIFT_Y, _SHIFT_X, _CUT_Y, _CUT_X, _ERASE = 1, 2, 3, 4, 5, 6
_BRIGHTNESS, _CONTRAST, _SATURATION = 7, 8, 9
_ERASE_TRIES, _FIRST_TRY = 10, 16

_LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, as torchvision's ``rgb_to_grayscale`` has them (ITU-R
BT.601)."""


def alternating_flip(seeds: Tensor, flip: float, epoch: int) -> Tensor:
    """Return which images are mirrored, (B,) bool: by chance in even epochs, the others in odd.

    So two epochs in a row show each image both ways, which chance alone does for half of them.

    Args:
        seeds: (B,) int64 of `fovea.data.draws.sample_seeds`, of one and the same epoch always.
        flip: probability in even epochs.
        epoch: counted from 0.

    Source: Jordan 2024, arXiv 2404.00498, section 3.6.
    """
    return (uniform(seeds, _FLIP) < flip) != (epoch % 2 == 1)


def flip_and_shift(
    images: Tensor,
    seeds: Tensor,
    flip: float | Tensor,
    padding: int,
    reflect: bool = False,
) -> Tensor:
    """Return each image mirrored with probability ``flip``, then shifted by up to ``padding``.

    A shift is the random crop of an image with ``padding`` pixels around it: black ones (He et al.
    2016, arXiv 1512.03385, section 4.2), or the image mirrored at its edges.

    Args:
        images: (B, C, H, W) uint8; channels_last is fastest.
        seeds: (B,) int64 of `fovea.data.draws.sample_seeds`, on the same device.
        flip: probability; or which images are mirrored, (B,) bool.
        padding: in pixels, less than H and W; 0 for no shift.
        reflect: the edges are mirrored, without repeating the outermost pixels.

    Returns:
        (B, C, H, W) uint8, channels_last.
    """
    mirrored = flip if isinstance(flip, Tensor) else uniform(seeds, _FLIP) < flip
    if padding == 0 or images.device.type != "cpu":
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return _shift_by_index(images, seeds, padding, reflect) if padding else images
    return _flip_and_shift_by_slices(images, mirrored, seeds, padding, reflect)


def _shifts(seeds: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Return the first row and column (B,) int64 of each window in the padded image."""
    places = 2 * padding + 1
    return (uniform(seeds, _SHIFT_Y) * places).long(), (uniform(seeds, _SHIFT_X) * places).long()


def _shift_by_index(images: Tensor, seeds: Tensor, padding: int, reflect: bool = False) -> Tensor:
    height, width = images.shape[-2:]
    top, left = _shifts(seeds, padding)
    mode = "reflect" if reflect else "constant"
    padded = torch.nn.functional.pad(images, (padding,) * 4, mode).permute(0, 2, 3, 1)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    batch = torch.arange(len(images), device=images.device)
    return padded[batch[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _flip_and_shift_by_slices(
    images: Tensor, mirrored: Tensor, seeds: Tensor, padding: int, reflect: bool
) -> Tensor:
    # The mirrored ones are brought to the front: one flip of a run of images instead of a choice
    # for each pixel. The windows are then copied to where each image belongs.
    order = torch.argsort(mirrored.int(), descending=True, stable=True)
    count = int(mirrored.sum())
    size, channels, height, width = images.shape
    sorted_ = images.permute(0, 2, 3, 1).index_select(0, order)
    padded = torch.zeros(
        size, height + 2 * padding, width + 2 * padding, channels, dtype=torch.uint8
    )
    inner = padded[:, padding : padding + height, padding : padding + width]
    inner[:count] = sorted_[:count].permute(0, 3, 1, 2).flip(-1).permute(0, 2, 3, 1)
    inner[count:] = sorted_[count:]
    if reflect:
        _reflect(padded, padding)
    shifted = torch.empty_like(sorted_)
    target, source = shifted.numpy(), padded.numpy()
    tops, lefts = (places[order].tolist() for places in _shifts(seeds, padding))
    for image, place, top, left in zip(source, order.tolist(), tops, lefts, strict=True):
        target[place] = image[top : top + height, left : left + width]
    return shifted.permute(0, 3, 1, 2)


def _reflect(padded: Tensor, padding: int) -> None:
    """Fill the ``padding`` pixels around the images (B, H, W, C) with what is inside, mirrored."""
    for lines in (padded.transpose(1, 2), padded):  # columns, then whole rows with the corners
        for distance in range(1, padding + 1):
            lines[:, padding - distance] = lines[:, padding + distance]
            lines[:, -1 - padding + distance] = lines[:, -1 - padding - distance]


def jitter_colour(images: Tensor, seeds: Tensor, strength: float) -> Tensor:
    """Return images with brightness, contrast and saturation changed, in this order.

    Each by a factor drawn from [1 - strength, 1 + strength] for each image.

    Args:
        images: (B, C, H, W) float on [0, 1]; grey images (C = 1) keep their saturation.
        seeds: (B,) int64.
        strength: from 0 up.

    Source: ``ColorJitter`` of torchvision, without hue and with a fixed order.
    """
    low = max(0.0, 1 - strength)
    brightness, contrast, saturation = (
        (low + uniform(seeds, draw) * (1 + strength - low))[:, None, None, None]
        for draw in (_BRIGHTNESS, _CONTRAST, _SATURATION)
    )
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean((1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    if images.shape[1] == 1:
        return images
    grey = _grey(images)
    return (grey + (images - grey) * saturation).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Return (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, i : i + 1] * weight for i, weight in enumerate(_LUMA))
    return red + green + blue


def cut_out(images: Tensor, seeds: Tensor, side: int) -> Tensor:
    """Return images with a square set to 0, its centre drawn anywhere in each image.

    Args:
        images: (B, C, H, W) float, normalised: 0 is the mean colour.
        seeds: (B,) int64.
        side: of the square in pixels. It may reach over the edge.

    Source: DeVries and Taylor 2017, arXiv 1708.04552, section 3.1.
    """
    height, width = images.shape[-2:]
    top = (uniform(seeds, _CUT_Y) * height).long() - side // 2
    left = (uniform(seeds, _CUT_X) * width).long() - side // 2
    return _blank(images, top, left, torch.full_like(top, side), torch.full_like(left, side))


def erase_rectangles(
    images: Tensor,
    seeds: Tensor,
    probability: float,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> Tensor:
    """Return images with a random rectangle set to 0, each with ``probability``.

    Args:
        images: (B, C, H, W) float, normalised: 0 is the mean colour.
        seeds: (B,) int64.
        probability: of an image being changed.
        scale: smallest and largest share of the area.
        ratio: smallest and largest height / width.

    Source: Zhong et al. 2020, arXiv 1708.04896, algorithm 1; ranges, and the ten tries after which
    an image is left alone, as in torchvision's ``RandomErasing``.
    """
    height, width = images.shape[-2:]
    box = [torch.zeros_like(seeds) for _ in range(4)]  # top, left, height, width
    found = uniform(seeds, _ERASE) >= probability  # those that are to be left alone
    for draw in range(_FIRST_TRY, _FIRST_TRY + 4 * _ERASE_TRIES, 4):
        area, shape, top, left = (uniform(seeds, draw + i) for i in range(4))
        area = height * width * (scale[0] + area * (scale[1] - scale[0]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        shape = torch.exp(low + shape * (high - low))
        h, w = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
        fits = (h < height) & (w < width) & ~found
        tried = ((top * (height - h + 1)).long(), (left * (width - w + 1)).long(), h, w)
        box = [torch.where(fits, new, old) for new, old in zip(tried, box, strict=True)]
        found = found | fits
    return _blank(images, *box)


def _blank(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Return images with a rectangle of each set to 0; (B,) int64 each."""
    rows = torch.arange(images.shape[-2], device=images.device)
    columns = torch.arange(images.shape[-1], device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None])[:, None], 0.0)
