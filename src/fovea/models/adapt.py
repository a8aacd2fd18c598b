"""Weights made for another image size or channel count, fitted to a network's shapes."""

from __future__ import annotations

import math

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn
from torch.nn import functional as F

_MOST_PREFIX_TOKENS = 8


def fit_first_conv(weight: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """Return a first convolution's weights (O, I, h, w) in ``shape``, and what was done.

    None if ``shape`` has another number of outputs. The kernel is resampled so that the response
    to a resized image stays what it was: the pseudo-inverse of Beyer et al. 2023, "FlexiViT",
    section 3.4, by timm.
    """
    if weight.ndim != 4 or len(shape) != 4 or weight.shape[0] != shape[0]:
        return None
    done = []
    if weight.shape[1] != shape[1]:
        done.append(f"{weight.shape[1]} -> {shape[1]} channels")
        weight = fit_channels(weight, shape[1])
    if weight.shape[2:] != shape[2:]:
        old, new = ("x".join(map(str, size)) for size in (weight.shape[2:], shape[2:]))
        done.append(f"kernel {old} -> {new}")
        weight = resample_patch_embed(weight.float(), list(shape[2:]))
    return weight, ", ".join(done)


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Return convolution weights (O, I, h, w) for images of ``channels`` instead of I channels.

    To one channel they are summed: a grey image gives what its RGB copy gave. To more they are
    repeated and scaled by I / ``channels``, which keeps the size of the response.

    Source: timm, ``adapt_input_conv``, here from any number of channels.
    """
    old = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / old), 1, 1)[:, :channels]
    return repeated * (old / channels)


def fit_positions(table: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """Return a position embedding (1, L, F) resampled to ``shape``, and what was done.

    None unless both are square grids of the same width behind the same number of prefix tokens.
    """
    if table.ndim != 3 or len(shape) != 3 or table.shape[2] != shape[2]:
        return None
    for prefix in range(_MOST_PREFIX_TOKENS):
        old, new = table.shape[1] - prefix, shape[1] - prefix
        if old < 1 or new < 1:
            return None
        a, b = math.isqrt(old), math.isqrt(new)
        if a * a == old and b * b == new:
            resampled = resample_abs_pos_embed(table, [b, b], [a, a], num_prefix_tokens=prefix)
            return resampled, f"positions {a}x{a} -> {b}x{b}"
    return None


def fit_dense(weight: Tensor, in_features: int, channels: int) -> Tensor:
    """Return a linear layer's weights on a flattened map, for a map of another side.

    The new layer on a (``channels``, b, b) map gives what the old one gives on the same map
    average-pooled (or, where b is smaller, spread out) to its own side, exactly.

    Args:
        weight: (O, channels * a * a).
        in_features: channels * b * b.
        channels: of the map, before it is flattened.
    """
    a, b = (math.isqrt(n // channels) for n in (weight.shape[1], in_features))
    basis = torch.eye(b * b, dtype=weight.dtype).view(b * b, 1, b, b)
    pooling = F.adaptive_avg_pool2d(basis, a).flatten(1)  # (b * b, a * a)
    return (weight.view(-1, channels, a * a) @ pooling.T).flatten(1)


def convert_first_linear(
    net: nn.Module, state: dict[str, Tensor], name: str, channels: int
) -> dict[str, Tensor]:
    """Return ``state`` with the weights ``name``, on a flattened map, fitted to that of ``net``."""
    weight, own = state.get(name), net.get_parameter(name)
    if weight is None or weight.shape == own.shape or weight.shape[:-1] != own.shape[:1]:
        return state
    if math.isqrt(weight.shape[1] // channels) ** 2 * channels != weight.shape[1]:
        return state  # another network's, whose maps have other channels
    return {**state, name: fit_dense(weight.float(), own.shape[1], channels)}
