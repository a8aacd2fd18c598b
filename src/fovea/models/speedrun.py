"""The network of airbench94, which learns CIFAR-10 to 94 % in seconds of a GPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fovea.errors import FoveaError
from fovea.models.backbone import Backbone
from fovea.models.whitening import IMAGES, whiten

_WHITEN_SIZE = 2
_BN_EPS = 1e-12


class BiasedNorm(nn.BatchNorm2d):
    """BatchNorm that learns a bias and no weight.

    The weight is a buffer of ones: without any, cuDNN's kernel is not used.
    """

    weight: Tensor  # type: ignore[assignment]

    def __init__(self, num_features: int, momentum: float) -> None:
        super().__init__(num_features, eps=_BN_EPS, momentum=momentum, affine=False)
        del self.weight
        self.register_buffer("weight", torch.ones(num_features), persistent=False)
        self.bias = nn.Parameter(torch.zeros(num_features))


class SpeedrunNet(Backbone):
    """A whitening convolution and three groups of two convolutions; features (B, F).

    Each group is convolution, 2 x 2 max pooling, BatchNorm, GELU, convolution, BatchNorm, GELU. The
    convolutions have no bias, and begin as the identity on their first input channels. The first
    convolution is set by `initialize` and its weight is not to be trained; see
    ``conf/experiment/cifar10_speedrun.yaml``.

    Args:
        in_channels: C.
        image_size: side in pixels. Groups that would have nothing left to pool do not pool.
        widths: channels of each group; the last is F.
        bn_momentum: share of a running statistic that a step keeps: 1 - torch's momentum.

    Raises:
        FoveaError: not three widths of at least 1, a momentum outside [0, 1), images of one pixel.

    Source: Jordan 2024, arXiv 2404.00498, sections 3.1 to 3.3; ``legacy/airbench94.py`` of
    KellerJordan/cifar10-airbench.
    """

    initial_images = IMAGES

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        widths: Sequence[int] = (64, 256, 256),
        bn_momentum: float = 0.6,
    ) -> None:
        _check(image_size, widths, bn_momentum)
        count = 2 * in_channels * _WHITEN_SIZE**2
        first = nn.Conv2d(in_channels, count, _WHITEN_SIZE)
        nn.init.zeros_(first.bias)  # type: ignore[arg-type]
        layers: OrderedDict[str, nn.Module] = OrderedDict(whiten=first, act=nn.GELU())
        side = image_size - _WHITEN_SIZE + 1
        for number, width in enumerate(widths, start=1):
            layers[f"group{number}"] = _group(count, width, side >= 2, 1 - bn_momentum)
            count, side = width, side // 2 if side >= 2 else side
        layers["pool"] = nn.AdaptiveMaxPool2d(1)
        layers["flatten"] = nn.Flatten()
        stages = {"stem": ["net.whiten"]} | {f"group{n}": [f"net.group{n}"] for n in (1, 2, 3)}
        super().__init__(
            nn.Sequential(layers),
            num_features=widths[-1],
            stages=stages,
            name="speedrun",
            in_channels=in_channels,
            image_size=image_size,
        )

    def initialize(self, batches: Iterable[Tensor]) -> str:
        """Set the first convolution from training images; see `Backbone.initialize`."""
        whiten(self.net.whiten, batches)  # type: ignore[arg-type]
        return "random; the first convolution whitens training images"

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the map (B, F, h, w) before pooling."""
        assert isinstance(self.net, nn.Sequential)
        features: Tensor = self.net[:-2](images)
        return features


def _check(image_size: int, widths: Sequence[int], bn_momentum: float) -> None:
    if len(widths) != 3 or min(widths) < 1:
        raise FoveaError(f"model.widths={list(widths)}: three widths of at least 1, one a group.")
    if not 0 <= bn_momentum < 1:
        raise FoveaError(f"model.bn_momentum={bn_momentum} must be from 0 to below 1.")
    if image_size < _WHITEN_SIZE:
        raise FoveaError(f"data.image_size={image_size} is too small: at least {_WHITEN_SIZE}.")


def _group(c_in: int, c_out: int, pool: bool, momentum: float) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=_conv(c_in, c_out),
        pool=nn.MaxPool2d(2) if pool else nn.Identity(),
        norm1=BiasedNorm(c_out, momentum),
        act1=nn.GELU(),
        conv2=_conv(c_out, c_out),
        norm2=BiasedNorm(c_out, momentum),
        act2=nn.GELU(),
    )
    return nn.Sequential(layers)


def _conv(c_in: int, c_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(c_in, c_out, 3, padding="same", bias=False)
    nn.init.dirac_(conv.weight.data[:c_in])
    return conv
