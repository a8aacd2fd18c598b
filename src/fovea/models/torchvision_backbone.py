"""torchvision's networks behind the face of `Backbone`, without their final linear layer."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn
from torchvision import models as zoo

from fovea.errors import FoveaError, nearest
from fovea.models.backbone import Backbone
from fovea.models.probe import probe_width
from fovea.models.stems import check_multiple, convolution_like, wants_small_stem
from fovea.models.torchvision_families import FAMILIES, Family


class TorchvisionBackbone(Backbone):
    """A torchvision network without its final linear layer."""

    def __init__(self, net: nn.Module, family: Family, **face: Any) -> None:
        super().__init__(net, library="torchvision", **face)
        self._family = family

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the last map (B, F', h, w), or the tokens (B, L, F') of a ViT."""
        return self._family.features(self.net, images)

    def convert_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` with what the family knows how to fit to another image size."""
        return self._family.convert(self.net, state)


def family_of(name: str) -> Family:
    """Return the family that torchvision's network ``name`` belongs to.

    Raises:
        FoveaError: torchvision has no such network, or it is of a family that has no face here.
    """
    known = zoo.list_models(module=zoo)
    if name not in known:
        close = nearest(name, known, 3)
        hint = f" Near: {', '.join(close)}." if close else ""
        raise FoveaError(
            f"torchvision has no network model.name={name}.{hint} "
            "For any of timm's more than a thousand: model=timm model.name=<timm name>."
        )
    for family in FAMILIES:
        if re.fullmatch(family.pattern, name):
            return family
    raise FoveaError(
        f"torchvision's '{name}' is not among the families used from there (AlexNet, VGG, ResNet "
        f"and ResNeXt, ConvNeXt, ViT). Use timm's: model=timm model.name={name} (or a near name)."
    )


def create_torchvision_backbone(
    name: str,
    *,
    in_channels: int,
    image_size: int,
    stem: str,
    drop_path: float,
    **options: Any,
) -> TorchvisionBackbone:
    """Return torchvision's network ``name`` with random weights; see `create_backbone`."""
    family = family_of(name)
    small = wants_small_stem(stem, image_size)
    net = _build(name, family, image_size if not small else None, drop_path, options)
    stages = family.stages(net)
    if small:
        family.shrink(net, image_size)
    if in_channels != 3:
        _set_channels(net, family, in_channels)
    *path, last = family.classifier.split(".")
    setattr(net.get_submodule(".".join(path)), last, nn.Identity())
    return TorchvisionBackbone(
        net,
        family,
        num_features=probe_width(net, name, in_channels, image_size, small),
        stages={stage: [f"net.{p}" for p in prefixes] for stage, prefixes in stages.items()},
        name=name,
        in_channels=in_channels,
        image_size=image_size,
        first_convs=(family.first_conv,),
        classifier=family.classifier,
        no_weight_decay=family.no_weight_decay(net),
    )


def _build(
    name: str, family: Family, image_size: int | None, drop_path: float, options: dict[str, Any]
) -> nn.Module:
    """Return torchvision's network; ``image_size`` None leaves its own."""
    options = dict(options)
    if family.drop_path:
        options[family.drop_path] = drop_path
    elif drop_path:
        raise FoveaError(
            f"model.drop_path={drop_path}: torchvision's '{name}' has no stochastic depth. Set "
            f"model.drop_path=0 or use timm's: model=timm model.name={name}."
        )
    if family.sized and image_size is not None:
        patch = int(re.findall(r"\d+", name)[-1])
        check_multiple(image_size, patch, name)
        options["image_size"] = image_size
    try:
        net: nn.Module = zoo.get_model(name, weights=None, **options)
    except TypeError as error:
        raise FoveaError(
            f"torchvision's '{name}' was given options {sorted(options)} and refused: {error}"
        ) from error
    return net


def _set_channels(net: nn.Module, family: Family, in_channels: int) -> None:
    """Make the first convolution of ``net`` take ``in_channels``."""
    old = net.get_submodule(family.first_conv)
    assert isinstance(old, nn.Conv2d)
    new = convolution_like(old, in_channels=in_channels)
    family.start(new)
    *path, last = family.first_conv.split(".")
    setattr(net.get_submodule(".".join(path)), last, new)
