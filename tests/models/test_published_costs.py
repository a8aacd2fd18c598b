"""Parameters and multiply-adds of every network that can be chosen, against published figures."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch
from omegaconf import DictConfig
from torch import nn
from torchvision.models import get_model_weights

from fovea.arguments import compose_checked
from fovea.catalog import config_dir, groups
from fovea.experiment import build_model
from fovea.judging import count_flops

LARGEST = 1000  # classes, where the data do not say


class Published(NamedTuple):
    """Parameters, and multiply-adds of one image in 10^9; ``digits`` of the latter are known."""

    parameters: int
    macs: float
    digits: int = 3
    side: int = 224
    classes: int = LARGEST


def torchvision(name: str) -> Published:
    """Return what the metadata of torchvision's weights say: exact, and to three decimals."""
    meta = get_model_weights(name).IMAGENET1K_V1.meta
    return Published(meta["num_params"], meta["_ops"])


def cifar(classes: int) -> Published:
    """Return torchvision's ResNet-18 with another stem and head, by hand.

    3 x 3 with stride 1 in place of 7 x 7 with stride 2, no pooling, so that 32 x 32 take the place
    of 56 x 56 positions. da2so/DA2Lite model_zoo/README.md has 11.17 M and 0.56 G for ten classes,
    weiaicunzai/pytorch-cifar100 README.md has 11.2 M for a hundred.
    """
    stem, small = 3 * 64 * 7 * 7, 3 * 64 * 3 * 3
    head, own = 513 * 1000, 513 * classes
    body = 1_814_073_344 - stem * 112**2 - 512 * 1000
    macs = body * 32**2 // 56**2 + small * 32**2 + 512 * classes
    return Published(11_689_512 - stem + small - head + own, macs / 1e9, 9, 32, classes)


def blurred(name: str, inputs: dict[int, int]) -> Published:
    """Return torchvision's ``name`` with a 3 x 3 depthwise blur in front of strided convolutions.

    Args:
        name: of the network.
        inputs: side of the map -> channels of all strided convolutions that see it.
    """
    exact = {"resnet18": 1_814_073_344, "resnet50": 4_089_184_256}[name]
    blur = sum(9 * side**2 * channels for side, channels in inputs.items())
    return torchvision(name)._replace(macs=(exact + blur) / 1e9, digits=9)


def transformer(width: int, patches: int, *, token: bool, hidden: int | None) -> Published:
    """Return a plain ViT/16 of 12 blocks, by hand from Dosovitskiy et al. 2020, section 3.1."""
    tokens = patches + token
    embed = 16 * 16 * 3 * width
    block = 4 * width**2 + 2 * 4 * width**2  # q, k, v and projection; two layers of 4 x width
    biases = 4 * width + 5 * width + 2 * 2 * width  # and those of two norms
    parameters = embed + width + tokens * width + token * width + 12 * (block + biases) + 2 * width
    macs = patches * embed + 12 * (tokens * block + 2 * tokens**2 * width)
    features = width
    if hidden is not None:
        parameters, macs = parameters + (features + 1) * hidden, macs + features * hidden
        features = hidden
    return Published(parameters + (features + 1) * 1000, (macs + features * 1000) / 1e9, 9)


def speedrun() -> Published:
    """Return airbench94's network on 32 x 32, by hand from the layers of its source file."""
    sides = (31, 15, 7, 3)  # of the 2 x 2 whitening, unpadded, and after each group's pooling
    widths = (24, 64, 256, 256)
    parameters, macs = 12 * 24 + 24, 12 * 24 * sides[0] ** 2
    for number in (1, 2, 3):
        before, width = widths[number - 1], widths[number]
        first, second = 9 * before * width, 9 * width**2
        parameters += first + second + 2 * width  # norms have biases and no weights
        macs += first * sides[number - 1] ** 2 + second * sides[number] ** 2
    parameters, macs = parameters + 10 * 256, macs + 10 * 256
    return Published(parameters, macs / 1e9, 9, 32, 10)


VIT_B = torchvision("vit_b_16")
RESNET50 = torchvision("resnet50")
MODELS = {
    name: torchvision(name)
    for name in ("alexnet", "convnext_tiny", "resnet18", "resnet50", "vgg16", "vgg16_bn")
}
MODELS["vit_s16"] = transformer(384, 196, token=True, hidden=None)
MODELS["speedrun"] = speedrun()
RECIPES = {
    "alexnet": MODELS["alexnet"],
    "cifar10_resnet18": cifar(10),
    "cifar10_speedrun": MODELS["speedrun"],
    "convnext_tiny": MODELS["convnext_tiny"],
    "resnet18_cifar10": cifar(10),
    "resnet18_cifar100": cifar(100),
    "resnet18_ffcv": blurred("resnet18", {56: 2 * 64, 28: 2 * 128, 14: 2 * 256}),
    "resnet18_v1": MODELS["resnet18"],
    "resnet50_ffcv": blurred("resnet50", {56: 128 + 256, 28: 256 + 512, 14: 512 + 1024}),
    "resnet50_rsb_a1": RESNET50,
    "resnet50_rsb_a2": RESNET50,
    "resnet50_rsb_a3": RESNET50,
    "resnet50_transfer": RESNET50,
    "resnet50_v1": RESNET50,
    "resnet50_v2": RESNET50,
    "transfer_to_folder": MODELS["resnet18"],
    "vgg16": MODELS["vgg16"],
    "vgg16_bn": MODELS["vgg16_bn"],
    "vit_b16_mae": VIT_B,
    "vit_b16_transfer": VIT_B,
    # Mean of the patches instead of a class token, and a layer in front of the head.
    "vit_s16": transformer(384, 196, token=False, hidden=384),
}
CHOICES = {f"model={name}": said for name, said in MODELS.items()}
CHOICES |= {f"experiment={name}": said for name, said in RECIPES.items()}


@cache
def counted(choice: str, side: int, classes: int) -> tuple[int, int, DictConfig]:
    """Return parameters, multiply-adds and configuration; nothing is allocated or computed."""
    cfg = compose_checked("train", [choice])
    names = [str(label) for label in range(classes)]
    with torch.device("meta"):
        backbone, head, _ = build_model(cfg.model, (3, side, side), names, load=False)
    network = nn.Sequential(backbone, head)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, count_flops(network, (3, side, side)) // 2, cfg


def test_no_network_is_left_out():
    assert set(MODELS) == set(groups()["model"]) - {"timm"}
    files = {name: config_dir() / "experiment" / f"{name}.yaml" for name in groups()["experiment"]}
    documents = {n for n, file in files.items() if "\nexpected:" in file.read_text()}
    assert documents <= set(RECIPES) <= set(files)


@pytest.mark.parametrize("choice", CHOICES)
def test_parameters_and_multiply_adds_are_the_published_ones(choice):
    said = CHOICES[choice]
    parameters, macs, cfg = counted(choice, said.side, said.classes)
    assert parameters == said.parameters
    assert round(macs / 1e9, said.digits) == pytest.approx(said.macs, abs=1e-12)
    if cfg.get("expected") is not None:
        assert cfg.expected.parameters == said.parameters


# timm results/model_benchmark_amp_nchw_rtx3090.csv: GMACs and millions of parameters. fvcore, which
# counted them, has 5 operations for each value that a layer norm sees, 25 of them here.
@pytest.mark.parametrize(
    ("choice", "width", "macs", "parameters"),
    [("model=vit_s16", 384, 4.61, 22.05), ("experiment=vit_b16_mae", 768, 17.58, 86.57)],
)
def test_transformers_are_those_of_timms_table(choice, width, macs, parameters):
    found, count, _ = counted(choice, 224, LARGEST)
    assert round(found / 1e6, 2) == parameters
    assert round((count + 25 * 197 * width * 5) / 1e9, 2) == macs


def test_the_figures_by_hand_are_those_that_others_publish():
    """Of the same functions that say what variants have."""
    assert round(transformer(768, 196, token=True, hidden=None).macs, 3) == VIT_B.macs
    assert transformer(768, 196, token=True, hidden=None).parameters == VIT_B.parameters
    assert cifar(10).parameters == 11_173_962
    assert (round(cifar(10).parameters / 1e6, 2), round(cifar(10).macs, 2)) == (11.17, 0.56)
    assert round(cifar(100).parameters / 1e6, 1) == 11.2
