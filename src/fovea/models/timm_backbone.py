"""timm's networks behind the face of `Backbone`, without their classifier."""

from __future__ import annotations

import re
import sys
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fovea.errors import FoveaError, nearest
from fovea.models.backbone import Backbone
from fovea.models.probe import probe_width
from fovea.models.stems import (
    check_multiple,
    convolution_like,
    map_patch,
    start_truncated,
    token_patch,
    wants_small_stem,
)
from fovea.models.timm_stages import timm_stages

_STEM_POOLS = ("maxpool", "stem.pool", "features.pool0")
"""Where timm's networks keep the pooling behind their first convolution."""


class TimmBackbone(Backbone):
    """A timm network without its classifier."""

    def __init__(self, net: nn.Module, **face: Any) -> None:
        super().__init__(net, library="timm", **face)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return timm's ``forward_features``: map, tokens, or (B, h, w, F') for Swin and kin."""
        features: Tensor = self.net.forward_features(images)  # type: ignore[operator]
        return features

    def convert_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` through timm's own filter for this network, where it has one.

        The filters rename what other projects published and resample position embeddings and
        patches. One that fails met another network's weights: those stay as they are, and the
        count of matches tells.
        """
        module = sys.modules[type(self.net).__module__]
        convert = getattr(module, "checkpoint_filter_fn", None)
        if convert is None:
            return state
        try:
            converted: dict[str, Tensor] = convert(dict(state), self.net)
        except (KeyError, RuntimeError, ValueError, AttributeError, AssertionError, TypeError):
            return state
        return converted


def check_timm_name(name: str) -> None:
    """Make sure that timm has ``name``, a network with or without a tag of weights.

    Raises:
        FoveaError: it does not; gives the nearest names.
    """
    if not timm.is_model(name):
        close = nearest(name.split(".")[0], timm.list_models(), 3)
        hint = f"Near: {', '.join(close)}. " if close else ""
        pattern = f"*{name.split('_')[0]}*"
        raise FoveaError(
            f"timm has no network model.name={name}. {hint}All of a kind: "
            f"python -c \"import timm; print(timm.list_models('{pattern}'))\""
        )
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        arch = name.split(".")[0]
        tags = [full for full in timm.list_pretrained(f"{arch}.*") if full.startswith(f"{arch}.")]
        raise FoveaError(
            f"timm has '{arch}', but no weights of it called '{name}'. "
            f"There are: {', '.join(tags) or 'none'}."
        ) from error


def create_timm_backbone(
    name: str, *, in_channels: int, image_size: int, stem: str, drop_path: float, **options: Any
) -> TimmBackbone:
    """Return timm's network ``name`` with random weights; see `create_backbone`."""
    check_timm_name(name)
    small = wants_small_stem(stem, image_size)
    fixed = _fixed_size(name)
    wishes: dict[str, Any] = {"drop_path_rate": drop_path}
    if fixed:
        wishes["img_size"] = (image_size, image_size)
        with torch.device("meta"):  # a look at the patches, without making any weights
            patch = _patch_of(_build(name, in_channels, {}, options))
        if patch and small and "patch_size" not in options:
            wishes["patch_size"] = token_patch(image_size, largest=patch)
        elif patch:
            check_multiple(image_size, patch, name)
    net = _build(name, in_channels, wishes, options)
    if "patch_size" in wishes:  # a few networks do not let it be chosen
        check_multiple(image_size, _patch_of(net) or 1, name, small=True)
    if small and not fixed and not _shrink(net, image_size) and stem == "small":
        raise FoveaError(
            f"No stem for small images is known for timm's '{name}': use model.stem=standard, "
            "or data.image_size to enlarge the images."
        )
    return TimmBackbone(
        net,
        num_features=probe_width(net, name, in_channels, image_size, small),
        stages=timm_stages(net),
        name=name,
        in_channels=in_channels,
        image_size=image_size,
        first_convs=_first_convs(net),
        classifier=_classifier(net),
        no_weight_decay=_no_weight_decay(net),
    )


def _build(
    name: str, in_channels: int, wishes: dict[str, Any], options: dict[str, Any]
) -> nn.Module:
    """Return timm's network, given those of ``wishes`` that it has parameters for."""
    wishes = dict(wishes)
    while True:
        settings = {**wishes, **options}
        try:
            net: nn.Module = timm.create_model(
                name, num_classes=0, in_chans=in_channels, **settings
            )
        except TypeError as error:
            unknown = re.search(r"(?:unexpected|multiple values).*?'(\w+)'", str(error))
            key = unknown[1] if unknown else "patch_size"  # which a few want as a list
            if key not in wishes or key in options:
                raise FoveaError(
                    f"timm's '{name}' was given options {sorted(options)} and refused: {error}"
                ) from error
            if key == "drop_path_rate" and wishes[key]:
                raise FoveaError(
                    f"model.drop_path={wishes[key]}: timm's '{name}' has no stochastic depth. "
                    "Set model.drop_path=0."
                ) from error
            del wishes[key]
        except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
            raise FoveaError(
                f"timm could not build '{name}' with {settings}: {error or type(error).__name__}. "
                f"Its own image size is {_own_size(name)} pixels."
            ) from error
        else:
            return net


def _own_size(name: str) -> int:
    """Return the image size that timm states for ``name``."""
    cfg = timm.get_pretrained_cfg(name)
    return cfg.input_size[-1] if cfg else 224


def _fixed_size(name: str) -> bool:
    """Return whether the network is built for one image size (position embeddings, windows)."""
    cfg = timm.get_pretrained_cfg(name)
    return bool(cfg and cfg.fixed_input_size)


def _first_convs(net: Any) -> tuple[str, ...]:
    """Return names of the convolutions that see the image."""
    named = net.pretrained_cfg.get("first_conv") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _classifier(net: Any) -> str | None:
    """Return the name that the (first) classifier has in timm's published weights."""
    named = net.pretrained_cfg.get("classifier")
    return named if isinstance(named, str) or not named else named[0]


def _no_weight_decay(net: Any) -> list[str]:
    """Return timm's own list of parameters without decay, those that exist."""
    listed = net.no_weight_decay() if hasattr(net, "no_weight_decay") else ()
    return sorted(set(listed) & {name for name, _ in net.named_parameters()})


def _patch_of(net: nn.Module) -> int | None:
    """Return the side of the patches that ``net`` cuts the image into, None if it does not."""
    for name in _first_convs(net):
        conv = net.get_submodule(name)
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == conv.stride != (1, 1):
            return conv.kernel_size[0]
    return None


def _shrink(net: nn.Module, image_size: int) -> bool:
    """Put a small stem into a convolutional ``net``; return whether there was one to put."""
    changed = False
    for name in _first_convs(net):
        conv = net.get_submodule(name)
        if not isinstance(conv, nn.Conv2d) or conv.stride == (1, 1):
            continue
        _put(net, name, _smaller(conv, image_size))
        changed = True
    modules = dict(net.named_modules())
    for name in _STEM_POOLS:
        if isinstance(modules.get(name), nn.MaxPool2d):
            _put(net, name, nn.Identity())
            changed = True
    return changed


def _put(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` in the place ``name`` of ``net``."""
    *path, last = name.split(".")
    setattr(net.get_submodule(".".join(path)), last, module)


def _smaller(conv: nn.Conv2d, image_size: int) -> nn.Conv2d:
    """Return the first convolution that keeps a small image's pixels.

    Patches shrink, a wide kernel becomes 3x3, a 3x3 one of stride 2 gets stride 1.
    """
    if conv.kernel_size == conv.stride:
        patch = map_patch(image_size, largest=conv.kernel_size[0])
        new = convolution_like(conv, kernel_size=patch, stride=patch)
        start_truncated(new)
    elif conv.kernel_size[0] > 3:
        new = convolution_like(conv, kernel_size=3, stride=1, padding=1)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    else:
        conv.stride = (1, 1)
        new = conv
    return new
