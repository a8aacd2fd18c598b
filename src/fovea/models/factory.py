"""Backbones by name, from either library."""

from __future__ import annotations

from typing import Any

from fovea.errors import FoveaError, did_you_mean
from fovea.models.backbone import Backbone
from fovea.models.blur import blur_strided
from fovea.models.timm_backbone import create_timm_backbone
from fovea.models.torchvision_backbone import create_torchvision_backbone
from fovea.models.zero_init import zero_last_norms

_LIBRARIES = {"torchvision": create_torchvision_backbone, "timm": create_timm_backbone}


def create_backbone(
    name: str,
    library: str = "torchvision",
    in_channels: int = 3,
    image_size: int = 224,
    stem: str = "auto",
    drop_path: float = 0.0,
    blurpool: bool = False,
    zero_init_residual: bool = False,
    **options: Any,
) -> Backbone:
    """Return the backbone ``name`` of ``library``, with random weights.

    Args:
        name: as the library calls it.
        library: "torchvision" or "timm".
        in_channels: 1 for grey images, 3 for RGB.
        image_size: side in pixels of the square images to come.
        stem: "auto" takes a stem for small images up to 64 pixels, where the network has one;
            "standard" and "small" force the choice.
        drop_path: stochastic depth, the chance that the last block's residual branch is dropped in
            training (it grows linearly from 0 at the first block). Huang et al. 2016, "Deep
            Networks with Stochastic Depth", section 3.
        blurpool: blur in front of each strided convolution; see `fovea.models.blur`.
        zero_init_residual: residual blocks begin as the identity; see
            `fovea.models.zero_init`. False leaves them as the library made them.
        options: further parameters of the network in its library.

    Raises:
        FoveaError: unknown name, library, stem or option; ``drop_path`` for a network without
            stochastic depth; ``blurpool`` for one without strided convolutions;
            ``zero_init_residual`` for one without such blocks; an image too small for the network,
            with the least size that is not.
    """
    if library not in _LIBRARIES:
        raise FoveaError(
            f"model.library={library} is none of {', '.join(_LIBRARIES)}."
            f"{did_you_mean(library, _LIBRARIES)}"
        )
    for key, value in {"in_channels": in_channels, "image_size": image_size}.items():
        if value < 1:
            raise FoveaError(f"{key}={value} of model '{name}' must be at least 1.")
    if not 0 <= drop_path < 1:
        raise FoveaError(f"model.drop_path={drop_path} is a probability: 0 <= drop_path < 1.")
    backbone = _LIBRARIES[library](
        name,
        in_channels=in_channels,
        image_size=image_size,
        stem=stem,
        drop_path=drop_path,
        **options,
    )
    if blurpool and not blur_strided(backbone.net):
        raise FoveaError(
            f"model.blurpool=true: '{name}' has no strided convolution of 16 or more channels to "
            "blur in front of. Set model.blurpool=false."
        )
    if zero_init_residual and not zero_last_norms(backbone.net):
        raise FoveaError(
            f"model.zero_init_residual=true: '{name}' has no residual blocks with norms that are "
            "known here. Set model.zero_init_residual=false."
        )
    return backbone
