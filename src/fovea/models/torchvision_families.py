"""What differs between torchvision's families of networks: stages, small stems, feature maps.

Names of parameters stay torchvision's, so that its published weights fit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fovea.models.adapt import convert_first_linear
from fovea.models.stems import (
    convolution_like,
    fit_first_linear,
    map_patch,
    start_truncated,
    token_patch,
)

Stages = dict[str, list[str]]
Net = Any  # torchvision's modules, whose children type checkers only know as Tensor | Module


class Family:
    """One family; the subclasses fill it in.

    Attributes:
        pattern: matches the whole name of a network of the family.
        first_conv: name of the convolution that sees the image.
        classifier: name of the final linear layer.
        drop_path: the builder's own name for stochastic depth, "" if it has none.
        sized: whether the builder must be told the image size.
    """

    pattern = ""
    first_conv = ""
    classifier = ""
    drop_path = ""
    sized = False

    def stages(self, net: Net) -> Stages:
        """Return stage -> prefixes of names in ``net``."""
        raise NotImplementedError

    def features(self, net: Net, images: Tensor) -> Tensor:
        """Return what stands before pooling, a map (B, F', h, w) or tokens (B, L, F')."""
        maps: Tensor = net.features(images)
        return maps

    def shrink(self, net: Net, image_size: int) -> None:
        """Put the small stem into ``net``."""
        raise NotImplementedError

    def start(self, layer: nn.Conv2d | nn.Linear) -> None:
        """Initialise a layer that was put in place of torchvision's, as torchvision would."""

    def no_weight_decay(self, net: Net) -> list[str]:
        """Return names of parameters that must not decay although they have several dimensions."""
        return []

    def convert(self, net: Net, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` with what only this family knows how to fit to ``net``."""
        return state


class ResNet(Family):
    """ResNet, ResNeXt, Wide ResNet."""

    pattern = r"(wide_)?resne(x)?t\d+(_.*)?"
    first_conv = "conv1"
    classifier = "fc"

    def stages(self, net: Net) -> Stages:
        """Return the stem and the four layers."""
        return {"stem": ["conv1", "bn1"], **{f"layer{i}": [f"layer{i}"] for i in range(1, 5)}}

    def features(self, net: Net, images: Tensor) -> Tensor:
        """Return the map of the last layer."""
        x: Tensor = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
        return x

    def shrink(self, net: Net, image_size: int) -> None:
        """3x3 convolution of stride 1, no max-pool.

        Source: He et al. 2016, "Deep Residual Learning", section 4.2 (the CIFAR-10 networks).
        """
        net.conv1 = convolution_like(net.conv1, kernel_size=3, stride=1, padding=1)
        self.start(net.conv1)
        net.maxpool = nn.Identity()

    def start(self, layer: nn.Conv2d | nn.Linear) -> None:
        """He initialisation by fan-out."""
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class AlexNet(Family):
    """AlexNet (the one-column version of Krizhevsky 2014)."""

    pattern = "alexnet"
    first_conv = "features.0"
    classifier = "classifier.6"

    def stages(self, net: Net) -> Stages:
        """Return the five convolutions and the two hidden linear layers."""
        convs = {f"conv{i}": [f"features.{k}"] for i, k in enumerate((3, 6, 8, 10), start=2)}
        return {"stem": ["features.0"], **convs, "fc6": ["classifier.1"], "fc7": ["classifier.4"]}

    def shrink(self, net: Net, image_size: int) -> None:
        """5x5 convolution, of stride 1 up to 63 pixels; poolings that keep the border.

        Source: the CIFAR-10 nets of Krizhevsky's cuda-convnet (layers-18pct: 5x5, stride 1, and
        overlapping 3x3 poolings of stride 2 that round up).
        """
        stride = max(1, image_size // 32)
        net.features[0] = convolution_like(net.features[0], kernel_size=5, stride=stride, padding=2)
        side = -(-image_size // stride)
        for pool in (m for m in net.features if isinstance(m, nn.MaxPool2d)):
            pool.padding = 1
            side = -(-side // 2)
        fit_first_linear(net, min(side, 6), dense=1)

    def convert(self, net: Net, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` with its first linear layer fitted to the side of the last map."""
        return convert_first_linear(net, state, "classifier.1.weight", channels=256)


class Vgg(Family):
    """VGG, with and without batch normalisation."""

    pattern = r"vgg\d+(_bn)?"
    first_conv = "features.0"
    classifier = "classifier.6"

    def stages(self, net: Net) -> Stages:
        """Return the five groups of convolutions between poolings, and the two hidden layers."""
        blocks: list[list[str]] = [[]]
        for i, layer in enumerate(net.features):
            if isinstance(layer, nn.MaxPool2d):
                blocks.append([])
            elif list(layer.parameters()):
                blocks[-1].append(f"features.{i}")
        named = {f"block{i}": block for i, block in enumerate(blocks[1:-1], start=2)}
        return {"stem": blocks[0], **named, "fc6": ["classifier.0"], "fc7": ["classifier.3"]}

    def shrink(self, net: Net, image_size: int) -> None:
        """Drop the first poolings where the image is too small for five (below 32 pixels)."""
        pools = [i for i, m in enumerate(net.features) if isinstance(m, nn.MaxPool2d)]
        kept = min(len(pools), image_size.bit_length() - 1)
        for i in pools[: len(pools) - kept]:
            net.features[i] = nn.Identity()
        fit_first_linear(net, min(image_size >> kept, 7), dense=0)
        nn.init.normal_(net.classifier[0].weight, 0, 0.01)
        nn.init.zeros_(net.classifier[0].bias)

    def start(self, layer: nn.Conv2d | nn.Linear) -> None:
        """He initialisation by fan-out."""
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)

    def convert(self, net: Net, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` with its first linear layer fitted to the side of the last map."""
        return convert_first_linear(net, state, "classifier.0.weight", channels=512)


class ConvNeXt(Family):
    """ConvNeXt."""

    pattern = r"convnext_\w+"
    first_conv = "features.0.0"
    classifier = "classifier.2"
    drop_path = "stochastic_depth_prob"

    def stages(self, net: Net) -> Stages:
        """Return the stem, four stages (each with the downsampling before it) and the norm."""
        stages = {
            f"stage{i}": [f"features.{k}" for k in (2 * i - 2, 2 * i - 1) if k > 0]
            for i in range(1, 5)
        }
        return {"stem": ["features.0"], **stages, "norm": ["classifier.0"]}

    def shrink(self, net: Net, image_size: int) -> None:
        """Patches of 1 pixel (2 from 64 pixels on, 4 from 128)."""
        patch = map_patch(image_size)
        net.features[0][0] = convolution_like(net.features[0][0], kernel_size=patch, stride=patch)
        self.start(net.features[0][0])

    def start(self, layer: nn.Conv2d | nn.Linear) -> None:
        """Truncated normal of 0.02."""
        start_truncated(layer)

    def no_weight_decay(self, net: Net) -> list[str]:
        """Return the layer scales, of shape (F, 1, 1) here: one factor a channel in the paper."""
        return [name for name, _ in net.named_parameters() if name.endswith("layer_scale")]


class VisionTransformer(Family):
    """ViT."""

    pattern = r"vit_\w+"
    first_conv = "conv_proj"
    classifier = "heads.head"
    sized = True

    def stages(self, net: Net) -> Stages:
        """Return the stem (patches, class token, position embedding), the blocks and the norm."""
        layers = {
            f"blocks.{i}": [f"encoder.layers.{name}"]
            for i, (name, _) in enumerate(net.encoder.layers.named_children())
        }
        stem = ["conv_proj", "class_token", "encoder.pos_embedding"]
        return {"stem": stem, **layers, "norm": ["encoder.ln"]}

    def features(self, net: Net, images: Tensor) -> Tensor:
        """Return the tokens, class token first."""
        x = net._process_input(images)
        tokens: Tensor = net.encoder(torch.cat([net.class_token.expand(len(x), -1, -1), x], dim=1))
        return tokens

    def shrink(self, net: Net, image_size: int) -> None:
        """Smaller patches, about 8 x 8 of them."""
        patch = token_patch(image_size, largest=net.patch_size)
        tokens, width = (image_size // patch) ** 2 + 1, net.hidden_dim
        net.conv_proj = convolution_like(net.conv_proj, kernel_size=patch, stride=patch)
        self.start(net.conv_proj)
        net.patch_size, net.image_size, net.seq_length = patch, image_size, tokens
        positions = net.encoder.pos_embedding.new_empty(1, tokens, width)
        net.encoder.pos_embedding = nn.Parameter(nn.init.normal_(positions, std=0.02))

    def start(self, layer: nn.Conv2d | nn.Linear) -> None:
        """Truncated normal by fan-in."""
        fan_in = layer.weight[0].numel()
        nn.init.trunc_normal_(layer.weight, std=(1 / fan_in) ** 0.5)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)

    def no_weight_decay(self, net: Net) -> list[str]:
        """Return the class token and the position embedding."""
        return ["class_token", "encoder.pos_embedding"]


FAMILIES: tuple[Family, ...] = (ResNet(), AlexNet(), Vgg(), ConvNeXt(), VisionTransformer())
