"""Each recipe at toy size, and the plain loop that it has to equal. A new recipe is one entry.

63 training images in batches of 8 make 7 steps an epoch; 7 images are left over. Words on the
command line are a toy's sizes and lengths; every number of a method stays the recipe's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.optim import SGD, AdamW

from recipes import narrow
from recipes.loops import Loop
from recipes.references import (
    Cutout,
    Ffcv,
    Plain,
    Torchvision2014,
    Torchvision2016,
    Torchvision2021,
)
from recipes.timm_references import BigVision, ConvNeXt, MaskedAutoencoder, StrikesBack

BATCH = 8
CLASSES = 7


@dataclass(frozen=True)
class Toy:
    """A recipe at toy size.

    Attributes:
        words: of the command line.
        net: makes the reference's network, with its own classifier.
        last: the name of its last layer.
        loop: makes the reference's loop of (net, epochs, steps).
        epochs: of the run.
        data: folder of `make_data`.
        sides: of training images in each epoch, where it is not ``data.image_size`` throughout.
        names: beginnings of fovea's names -> the reference's, beside the backbone's and the head's.
    """

    words: list[str]
    net: Callable[[], nn.Module]
    last: str
    loop: Callable[..., Loop]
    epochs: int = 3
    data: str = "imagenet"
    sides: Callable[[int], int] | None = None
    names: tuple[tuple[str, str], ...] = ()

    def name(self, own: str) -> str:
        """Return the reference's name of what fovea calls ``own``."""
        pairs = (*self.names, ("backbone.net.", ""), ("head.linear.", f"{self.last}."))
        for prefix, other in pairs:
            if own.startswith(prefix):
                return other + own.removeprefix(prefix)
        raise AssertionError(own)


class BlurPoolConv2d(nn.Module):
    """ffcv-imagenet's: a fixed binomial filter, then the convolution with its stride."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        taps = torch.tensor([[[[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]]]) / 16
        self.register_buffer("taps", taps.repeat(conv.in_channels, 1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        channels = self.conv.in_channels
        return self.conv(conv2d(images, self.taps, stride=1, padding=(1, 1), groups=channels))


def blurred(module: nn.Module) -> nn.Module:
    """Return ``module`` with a blur in front of strided convolutions of 16 channels and more."""
    for name, child in module.named_children():
        wide = isinstance(child, nn.Conv2d) and max(child.stride) > 1 and child.in_channels >= 16
        setattr(module, name, BlurPoolConv2d(child) if wide else blurred(child))
    return module


def small_stem(net: nn.Module) -> nn.Module:
    """Return a ResNet with the stem of He et al. 2016, section 4.2."""
    net.conv1 = nn.Conv2d(3, narrow.STEM, 3, stride=1, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


class WithRepresentation(nn.Module):
    """A ViT with big_vision's ``rep_size``: a layer in front of the classifier (GELU here)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model(
            "test_vit", num_classes=0, img_size=32, class_token=False, global_pool="avg",
            fc_norm=False,
        )  # fmt: skip
        self.rep = nn.Linear(64, 384)
        self.head = nn.Linear(384, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(nn.functional.gelu(self.rep(self.body(images))))


def torchvision(name: str) -> Callable[[], nn.Module]:
    return partial(narrow.NETWORKS[name], num_classes=CLASSES)


def timms(name: str, **options: Any) -> Callable[[], nn.Module]:
    return partial(timm.create_model, name, num_classes=CLASSES, **options)


IMAGENET = ["data.classes=present", f"data.batch_size={BATCH}", "model.stem=standard"]
FOLDER = [f"data.batch_size={BATCH}", "data.image_size=32", "scheduler.warmup_epochs=1"]
STEPS = "scheduler.milestones=[1,2]"


def old(name: str, loop: Any, last: str, size: int = 48) -> Toy:
    """Return a recipe of torchvision's first kind."""
    own = [*IMAGENET, f"data.image_size={size}", "trainer.max_epochs=3", STEPS]
    return Toy(own, torchvision(name), last, loop)


def strikes_back(size: int, **settings: Any) -> Toy:
    """Return one of the procedures A1 to A3, whose stochastic depth is ``drop_path``."""
    drop_path = settings.pop("drop_path")
    return Toy(
        [
            *IMAGENET, "model.name=test_resnet", "data.image_size=48", f"augment.size={size}",
            "trainer.max_epochs=3", "scheduler.warmup_epochs=1",
        ],
        timms("test_resnet", drop_path_rate=drop_path),
        "fc",
        partial(StrikesBack, **settings),
        sides=lambda epoch: size,
    )  # fmt: skip


def ffcv(name: str, **settings: Any) -> Toy:
    ramp = {"smallest": 32, "largest": 64, "first": 0, "last": 2}
    return Toy(
        [
            *IMAGENET, "data.image_size=64", "augment.start_size=32", "augment.size=64",
            "augment.grow=[0,2]", "trainer.max_epochs=3",
        ],
        lambda: blurred(torchvision(name)()),
        "fc",
        partial(Ffcv, **settings),
        sides=lambda epoch: Ffcv.side(epoch, **ramp),
    )  # fmt: skip


def cifar(classes: int) -> Toy:
    words = [
        f"data.batch_size={BATCH}", "data.val_fraction=0.1", "test=false", "trainer.max_epochs=4",
        "scheduler.milestones=[2,3]",
    ]  # fmt: skip
    if classes != 10:  # a folder of so many classes would be all there is to it
        words += ["data=folder", "data.image_size=32"]
    return Toy(
        words, lambda: small_stem(narrow.resnet18(num_classes=10)), "fc", Cutout, 4, "cifar10"
    )


RECIPES: dict[str, Toy] = {
    "alexnet": old("alexnet", Torchvision2014, "classifier.6", size=64),
    "vgg16": old("vgg16", Torchvision2014, "classifier.6", size=32),
    "vgg16_bn": old("vgg16_bn", Torchvision2016, "classifier.6"),
    "resnet18_v1": old("resnet18", Torchvision2016, "fc"),
    "resnet50_v1": old("resnet50", Torchvision2016, "fc"),
    "resnet50_v2": Toy(
        [
            *IMAGENET, "data.image_size=48", "augment.size=40", "trainer.max_epochs=3",
            "scheduler.warmup_epochs=1", "callbacks.ema.every_n_steps=3",
        ],
        torchvision("resnet50"), "fc", partial(Torchvision2021, batch=BATCH),
        sides=lambda epoch: 40,
    ),
    "resnet50_rsb_a1": strikes_back(
        40, drop_path=0.05, lr=5e-3, weight_decay=0.01, smoothing=0.1, threshold=None
    ),
    "resnet50_rsb_a2": strikes_back(
        40, drop_path=0.05, lr=5e-3, weight_decay=0.02, smoothing=0.0, threshold=0.2
    ),
    "resnet50_rsb_a3": strikes_back(
        40, drop_path=0.0, lr=8e-3, weight_decay=0.02, smoothing=0.0, threshold=0.2
    ),
    "convnext_tiny": Toy(
        [*IMAGENET, "data.image_size=32", "trainer.max_epochs=3", "scheduler.warmup_epochs=1"],
        torchvision("convnext_tiny"), "classifier.2", ConvNeXt,
    ),
    "vit_s16": Toy(
        [
            *IMAGENET, "model.name=test_vit", "data.image_size=32", "trainer.max_epochs=3",
            "scheduler.warmup_steps=5", "data.val_fraction=0.1", "test=false",
        ],
        WithRepresentation, "head", BigVision,
        names=(("backbone.net.", "body."), ("head.hidden.1.", "rep.")),
    ),
    "vit_b16_mae": Toy(
        [
            *IMAGENET, "model.name=test_vit", "data.image_size=32", "trainer.max_epochs=3",
            "scheduler.warmup_epochs=1",
        ],
        timms("test_vit", img_size=32, global_pool="avg", drop_path_rate=0.1), "head",
        MaskedAutoencoder,
    ),
    "resnet18_ffcv": ffcv("resnet18", lr=0.5, weight_decay=5e-5),
    "resnet50_ffcv": ffcv("resnet50", lr=1.7, weight_decay=1e-4),
    "resnet18_cifar10": cifar(10),
    "resnet18_cifar100": cifar(100),
    "cifar10_resnet18": Toy(
        [f"data.batch_size={BATCH}", "trainer.max_epochs=3", "scheduler.warmup_epochs=1"],
        lambda: small_stem(narrow.resnet18(num_classes=10)), "fc",
        partial(Plain, optimizer=partial(SGD, momentum=0.9, nesterov=True), lr=0.1,
                weight_decay=5e-4),
        data="cifar10",
    ),
    "resnet50_transfer": Toy(
        [*FOLDER, "model.weights=null", "model.stem=standard", "data.image_size=48",
         "trainer.max_epochs=3"],
        torchvision("resnet50"), "fc",
        partial(Plain, optimizer=partial(SGD, momentum=0.9, nesterov=True), lr=0.02,
                weight_decay=1e-4, smoothing=0.1, probe=1, last="fc", max_norm=1.0),
    ),
    "vit_b16_transfer": Toy(
        [*FOLDER, "model.weights=null", "model.name=test_vit", "model.stem=standard",
         "trainer.max_epochs=3"],
        timms("test_vit", img_size=32, drop_path_rate=0.1), "head",
        partial(Plain, optimizer=AdamW, lr=1e-3, weight_decay=1e-4, smoothing=0.1, probe=1,
                last="head", max_norm=1.0, spared=["pos_embed", "cls_token"]),
    ),
    "transfer_to_folder": Toy(
        [*FOLDER, "trainer.max_epochs=3"],
        lambda: small_stem(narrow.resnet18(num_classes=CLASSES)), "fc",
        partial(Plain, optimizer=AdamW, lr=2e-3, weight_decay=0.05, probe=1, last="fc"),
    ),
}  # fmt: skip
