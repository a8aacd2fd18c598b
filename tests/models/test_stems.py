"""Stems for small images, and sizes that a network cannot take."""

import pytest
import torch

from fovea.errors import FoveaError
from fovea.models import create_backbone
from fovea.models.stems import map_patch, token_patch


def feature_map(backbone, channels, size):
    device = next(backbone.parameters()).device
    with torch.no_grad():
        return backbone.eval().forward_features(torch.zeros(1, channels, size, size, device=device))


@pytest.mark.parametrize(
    ("size", "stem", "kernel", "side"),
    [
        (8, "auto", 3, 1),
        (32, "auto", 3, 4),
        (64, "auto", 3, 8),
        (65, "auto", 7, 3),
        (224, "auto", 7, 7),
        (32, "standard", 7, 1),
        (96, "small", 3, 12),
    ],
)
def test_resnet_stem(size, stem, kernel, side):
    backbone = create_backbone("resnet18", in_channels=1, image_size=size, stem=stem)
    assert backbone.net.conv1.kernel_size == (kernel, kernel)
    assert backbone.net.conv1.in_channels == 1
    assert feature_map(backbone, 1, size).shape == (1, 512, side, side)


def test_small_resnet_is_the_usual_cifar_resnet():
    """11.17 M parameters with ten classes, as every CIFAR-10 report of ResNet-18 says."""
    backbone = create_backbone("resnet18", image_size=32)
    count = sum(p.numel() for p in backbone.parameters())
    assert count + 512 * 10 + 10 == 11_173_962


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50d", "resnetv2_50"])
def test_timm_resnets_get_the_same_resolution_as_torchvision(name):
    backbone = create_backbone(name, library="timm", image_size=32)
    assert feature_map(backbone, 3, 32).shape[2:] == (4, 4)


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("alexnet", 8, 1),
        ("alexnet", 32, 4),
        ("alexnet", 64, 4),
        ("vgg11", 8, 1),
        ("vgg11", 28, 1),
        ("vgg11", 64, 2),
        ("convnext_tiny", 8, 1),
        ("convnext_tiny", 32, 4),
        ("convnext_tiny", 64, 4),
    ],
)
def test_other_small_stems(name, size, side):
    with torch.device("meta"):
        backbone = create_backbone(name, image_size=size)
    assert feature_map(backbone, 3, size).shape[2:] == (side, side)


@pytest.mark.parametrize(
    ("name", "library", "size", "tokens"),
    [
        *(("test_vit", "timm", *case) for case in [(8, 64), (28, 49), (32, 64), (64, 64)]),
        ("vit_b_32", "torchvision", 28, 49),
    ],
)
def test_vit_sees_about_64_patches_of_a_small_image(name, library, size, tokens):
    with torch.device("meta"):
        backbone = create_backbone(name, library=library, image_size=size)
    assert feature_map(backbone, 3, size).shape[1] == tokens + 1


@pytest.mark.parametrize(
    ("size", "patch"), [(4, 1), (8, 1), (16, 2), (28, 4), (32, 4), (48, 6), (60, 6), (64, 8)]
)
def test_token_patch(size, patch):
    assert token_patch(size) == patch
    assert size % patch == 0


def test_token_patch_never_grows():
    assert token_patch(64, largest=4) == 4


def test_token_patch_of_a_prime_size_names_sizes_that_work():
    with pytest.raises(FoveaError, match=r"data.image_size=30 or data.image_size=32"):
        token_patch(31)


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (32, 1), (64, 2), (128, 4), (224, 4)])
def test_map_patch(size, patch):
    assert map_patch(size) == patch


@pytest.mark.parametrize(
    ("name", "library", "size", "least"),
    [
        ("alexnet", "torchvision", 32, 63),
        ("vgg11", "torchvision", 8, 32),
        ("convnext_tiny", "torchvision", 16, 32),
        ("inception_v3", "timm", 65, 75),
    ],
)
def test_too_small_an_image_names_the_least_size(name, library, size, least):
    with torch.device("meta"):
        with pytest.raises(FoveaError, match=rf"image_size={least}\. .*model\.stem=small"):
            create_backbone(name, library=library, image_size=size, stem="standard")
        create_backbone(name, library=library, image_size=least, stem="standard")
        with pytest.raises(FoveaError, match=f"cannot take images of {least - 1}"):
            create_backbone(name, library=library, image_size=least - 1, stem="standard")


@pytest.mark.parametrize(("name", "library"), [("vit_b_16", "torchvision"), ("test_vit", "timm")])
def test_sizes_that_patches_do_not_cover_are_refused(name, library):
    with pytest.raises(FoveaError, match=r"data\.image_size=96 or data\.image_size=112"):
        create_backbone(name, library=library, image_size=100, stem="standard")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stem": "smal"}, "Did you mean 'small'"),
        ({"library": "torchvison"}, "Did you mean 'torchvision'"),
        ({"name": "resnet81"}, "resnet18"),
        ({"name": "googlenet"}, "model=timm model.name=googlenet"),
        ({"drop_path": 0.1}, "no stochastic depth"),
        ({"drop_path": 1.5}, "probability"),
        ({"image_size": 0}, "image_size=0"),
        ({"colour": True}, "colour"),
    ],
)
def test_mistakes_are_named(settings, says):
    with pytest.raises(FoveaError, match=says):
        create_backbone(**{"name": "resnet18", **settings})


def test_stochastic_depth_is_passed_on():
    convnext = create_backbone("convnext_tiny", image_size=32, drop_path=0.3)
    depths = [m.p for m in convnext.modules() if type(m).__name__ == "StochasticDepth"]
    assert depths[0] == 0
    assert depths[-1] == pytest.approx(0.3)
    assert depths == sorted(depths)
