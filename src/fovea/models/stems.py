"""Stems for small images: what has to change at the entrance of a network made for 224 pixels.

Networks of that kind shrink the image 4 to 16 times before their first block; at 32 pixels that
leaves almost nothing. The small stems keep the pixels and leave everything behind them as it is,
so that published weights of all later layers still fit.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from fovea.errors import FoveaError, did_you_mean

SMALL_IMAGE = 64
"""Side in pixels up to which ``stem=auto`` takes the small stem."""


def wants_small_stem(stem: str, image_size: int) -> bool:
    """Return whether the network gets its small stem.

    Raises:
        FoveaError: ``stem`` is none of the three choices.
    """
    choices = ("auto", "standard", "small")
    if stem not in choices:
        raise FoveaError(
            f"model.stem={stem} is none of {', '.join(choices)}.{did_you_mean(stem, choices)}"
        )
    return stem == "small" or (stem == "auto" and image_size <= SMALL_IMAGE)


def token_patch(image_size: int, largest: int = 16) -> int:
    """Return the side of a transformer's patch that cuts a small image into about 8 x 8 tokens.

    The divisor of ``image_size`` that comes nearest to that: 4 for 28 pixels. Never more than
    ``largest``.

    Raises:
        FoveaError: no divisor gives 4 to 17 tokens a side (prime sizes); names the nearest sizes
            that have one.
    """
    if (patch := _nearest_patch(image_size, largest)) is not None:
        return patch
    sizes = [s for s in range(image_size - 8, image_size + 9) if _nearest_patch(s, largest)]
    below = max((s for s in sizes if s < image_size), default=None)
    above = min((s for s in sizes if s > image_size), default=None)
    choices = " or ".join(f"data.image_size={s}" for s in (below, above) if s)
    raise FoveaError(
        f"data.image_size={image_size} cannot be cut into patches for a small transformer's stem "
        f"(4 to 17 a side, without a rest): use {choices or 'model.stem=standard'}."
    )


def _nearest_patch(image_size: int, largest: int) -> int | None:
    """Return the divisor that gives 4 to 17 (and about 8) tokens a side, None if none does."""
    if image_size < 8:
        return 1
    divisors = [p for p in range(1, largest + 1) if image_size % p == 0]
    best = min(divisors, key=lambda p: abs(math.log(image_size / p / 8)))
    return best if 4 <= image_size // best <= 17 else None


def check_multiple(image_size: int, patch: int, name: str, small: bool = False) -> None:
    """Make sure that patches of ``patch`` pixels cover the image to its edge.

    ``small`` says whether a small stem was asked for already, for the error's advice.

    Raises:
        FoveaError: they do not; names the nearest sizes that work.
    """
    if image_size % patch:
        sizes = [image_size // patch * patch, (image_size // patch + 1) * patch]
        choices = " or ".join(f"data.image_size={size}" for size in sizes if size)
        raise FoveaError(
            f"'{name}' cuts the image into patches of {patch} pixels, and data.image_size="
            f"{image_size} is not a multiple of that: use {choices}"
            + ("." if small else ", or smaller patches with model.stem=small.")
        )


def map_patch(image_size: int, largest: int = 4) -> int:
    """Return the side of a hierarchical network's patch that leaves a small image its last map.

    Such a network halves the map three more times: 32 pixels and patches of 1 end in 4 x 4.
    """
    return min(largest, max(1, image_size // 32))


def convolution_like(
    conv: nn.Conv2d,
    *,
    in_channels: int | None = None,
    kernel_size: int | None = None,
    stride: int | None = None,
    padding: int | None = None,
) -> nn.Conv2d:
    """Return a new square convolution with the settings of ``conv`` but for those given."""
    assert not isinstance(conv.padding, str)
    return nn.Conv2d(
        in_channels or conv.in_channels,
        conv.out_channels,
        kernel_size or conv.kernel_size[0],
        stride or conv.stride[0],
        conv.padding[0] if padding is None else padding,
        bias=conv.bias is not None,
        device=conv.weight.device,
    )


def start_truncated(layer: nn.Conv2d | nn.Linear) -> None:
    """Initialise weights by a truncated normal of 0.02 and biases by zero."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def fit_first_linear(net: Any, side: int, dense: int) -> None:
    """Pool the last map of ``net`` to ``side`` and make its first linear layer take just that.

    torchvision pools up to the size that 224 pixels give: on a small image, copies of few values
    in front of tens of millions of weights, which one smaller layer expresses exactly.
    """
    old: nn.Linear = net.classifier[dense]
    channels = old.in_features // net.avgpool.output_size[0] ** 2
    net.avgpool = nn.AdaptiveAvgPool2d((side, side))
    net.classifier[dense] = nn.Linear(
        channels * side**2, old.out_features, device=old.weight.device
    )
