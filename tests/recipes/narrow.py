"""Narrow networks under torchvision's own names: the same classes, a few thousand values.

A recipe is composed and built as it stands, then, and a step of it takes milliseconds.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import VGG, AlexNet, ConvNeXt, ResNet, _api
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import make_layers

NARROWER = 4
"""By how much the layers of a ResNet are narrower."""
STEM = 64 // NARROWER


class NarrowResNet(ResNet):
    """A quarter of the channels in each layer."""

    def __init__(self, block: Any, layers: list[int], num_classes: int = 1000) -> None:
        super().__init__(block, layers, num_classes)
        self.conv1 = nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.fc = nn.Linear(512 // NARROWER * block.expansion, num_classes)

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        self.inplanes = STEM if planes == 64 else self.inplanes
        return super()._make_layer(block, planes // NARROWER, *args, **kwargs)


def resnet18(weights: None = None, num_classes: int = 1000) -> nn.Module:
    return NarrowResNet(BasicBlock, [2, 1, 1, 1], num_classes)


def resnet50(weights: None = None, num_classes: int = 1000) -> nn.Module:
    return NarrowResNet(Bottleneck, [1, 1, 2, 1], num_classes)


def _vgg(norm: bool, num_classes: int) -> nn.Module:
    layers = make_layers([4, 4, "M", 8, "M", 8, "M", 16, "M", 16, 16, "M"], batch_norm=norm)
    net = VGG(layers, num_classes, init_weights=False)
    net.classifier = nn.Sequential(*_dense(16 * 7 * 7, num_classes))
    for module in net.modules():  # as the class itself does for its own layers
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
    return net


def _dense(inputs: int, classes: int) -> list[nn.Module]:
    hidden = [nn.Linear(inputs, 32), nn.ReLU(True), nn.Dropout(0.5)]
    return [*hidden, nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(0.5), nn.Linear(32, classes)]


def vgg16(weights: None = None, num_classes: int = 1000) -> nn.Module:
    return _vgg(False, num_classes)


def vgg16_bn(weights: None = None, num_classes: int = 1000) -> nn.Module:
    return _vgg(True, num_classes)


def narrow_alexnet(weights: None = None, num_classes: int = 1000) -> nn.Module:
    net = AlexNet(num_classes)
    widths, inputs = iter((8, 12, 12, 8, 8)), 3
    for i, layer in enumerate(net.features):
        if isinstance(layer, nn.Conv2d):
            size, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
            net.features[i] = nn.Conv2d(inputs, width := next(widths), size, stride, padding)
            inputs = width
    dropout, first, *hidden = nn.Dropout(0.5), *_dense(8 * 6 * 6, num_classes)
    second, last = hidden[2], hidden[5]
    net.classifier = nn.Sequential(
        dropout, first, nn.ReLU(True), nn.Dropout(0.5), second, nn.ReLU(True), last
    )
    return net


def convnext_tiny(
    weights: None = None, num_classes: int = 1000, stochastic_depth_prob: float = 0.1
) -> nn.Module:
    widths = (8, 16, 24, 32, None)
    blocks = [
        CNBlockConfig(width, after, depth)
        for width, after, depth in zip(widths, widths[1:], (1, 1, 3, 1), strict=False)
    ]
    return ConvNeXt(blocks, stochastic_depth_prob, num_classes=num_classes)


NETWORKS = {
    "alexnet": narrow_alexnet,
    "vgg16": vgg16,
    "vgg16_bn": vgg16_bn,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "convnext_tiny": convnext_tiny,
}


def put_narrow_networks() -> None:
    """Let torchvision build these in this process whenever it is asked by name."""
    for name, builder in NETWORKS.items():
        builder.__module__ = "torchvision.models.narrow"  # by which `list_models` knows its own
        _api.BUILTIN_MODELS[name] = builder
