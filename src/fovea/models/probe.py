"""What a network gives for an image size, found without computing anything."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fovea.errors import FoveaError


def probe_width(net: nn.Module, name: str, in_channels: int, image_size: int, small: bool) -> int:
    """Return F of the pooled features (B, F) that ``net`` gives for images of ``image_size``.

    ``small`` says whether it has its small stem, for the error's advice.

    Raises:
        FoveaError: the image is too small for the network, or the network does not give (B, F).
    """
    try:
        features = _run(net, in_channels, image_size, "meta")
    except Exception:  # some networks keep tensors that the meta device does not reach
        features = _run_real(net, name, in_channels, image_size, small)
    if features.ndim != 2:
        raise FoveaError(
            f"Backbone '{name}' gives features of shape {tuple(features.shape)} where (B, F) is "
            "needed: it has no pooling of its own. Choose another network."
        )
    return features.shape[1]


def _run(net: nn.Module, in_channels: int, image_size: int, device: str) -> Tensor:
    """Return ``net`` of one blank image, in evaluation mode, with ``net`` left as it was."""
    state = {name: t.to(device) for name, t in [*net.named_parameters(), *net.named_buffers()]}
    image = torch.zeros(1, in_channels, image_size, image_size, device=device)
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.no_grad():
            result: Tensor = functional_call(net.eval(), state, (image,))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return result


def _run_real(net: nn.Module, name: str, in_channels: int, image_size: int, small: bool) -> Tensor:
    """Return ``net`` of a blank image, or say why it cannot be had."""
    device = next(net.parameters()).device.type
    try:
        return _run(net, in_channels, image_size, device)
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
        least = _next_side(net, in_channels, image_size)
        if least is None:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FoveaError(
                f"'{name}' cannot take images of {image_size} pixels: {reason.rstrip('.')}."
            ) from error
        advice = "" if small else " For small images: model.stem=small."
        raise FoveaError(
            f"'{name}' with this stem cannot take images of {image_size} pixels: the least size "
            f"above that it takes is data.image_size={least}.{advice}"
        ) from error


def _next_side(net: nn.Module, in_channels: int, image_size: int) -> int | None:
    """Return the least side above ``image_size`` that ``net`` accepts, None if none is found.

    To the pixel up to 128; above that multiples of 8 are tried.
    """
    for side in [*range(image_size + 1, 129), *range(136, 513, 8)]:
        if side <= image_size:
            continue
        try:
            _run(net, in_channels, side, "meta")
        except Exception:
            continue
        return side
    return None
