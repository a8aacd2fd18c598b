"""Blurred convolutions against timm's BlurPool2d, and blocks that begin as the identity."""

from __future__ import annotations

import pytest
import torch
import torchvision
from timm.layers import BlurPool2d
from torch import nn

from fovea.errors import FoveaError
from fovea.models import create_backbone
from fovea.models.blur import BlurredConv2d, blur_strided


@pytest.mark.parametrize("bias", [False, True])
def test_a_blurred_convolution_is_timms_blur_and_then_the_convolution(bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 4, 3, stride=2, padding=1, bias=bias)
    blur = BlurPool2d(16, filt_size=3, stride=1, pad_mode="constant")
    images = torch.randn(2, 16, 9, 11)
    blurred = BlurredConv2d(conv)
    torch.testing.assert_close(blurred(images), conv(blur(images)))
    assert blurred.weight is conv.weight
    assert blurred.state_dict().keys() == conv.state_dict().keys()


def test_the_right_convolutions_of_a_resnet_are_blurred_and_names_stay():
    plain = create_backbone("resnet50", image_size=224)
    blurred = create_backbone("resnet50", image_size=224, blurpool=True)
    names = {n.removeprefix("net.") for n, m in blurred.named_modules() if type(m) is BlurredConv2d}
    # Three blocks that halve the map, and their shortcuts; conv1 sees 3 channels.
    blocks = ("layer2.0", "layer3.0", "layer4.0")
    assert names == {f"{b}.{part}" for b in blocks for part in ("conv2", "downsample.0")}
    assert blurred.state_dict().keys() == plain.state_dict().keys()
    blurred.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(plain.eval()(images), blurred.eval()(images))
    flat = torch.full((1, 3, 64, 64), 0.3)  # far from the border nothing changes
    inner = [net.net.layer1(net.net.maxpool(net.net.conv1(flat))) for net in (plain, blurred)]
    torch.testing.assert_close(inner[0], inner[1])


def test_networks_without_strided_convolutions_say_so():
    assert blur_strided(nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(16, 8, 3))) == 0
    with pytest.raises(FoveaError, match=r"blurpool=true.*vgg11"):
        create_backbone("vgg11", image_size=32, blurpool=True)
    with pytest.raises(FoveaError, match=r"zero_init_residual=true.*vgg11"):
        create_backbone("vgg11", image_size=32, zero_init_residual=True)


@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_init_is_torchvisions(name, last):
    ours = create_backbone(name, zero_init_residual=True).net.state_dict()
    theirs = torchvision.models.get_model(name, zero_init_residual=True).state_dict()
    for key in ours:
        if key.endswith(".weight") and ours[key].ndim == 1:
            assert torch.equal(ours[key], theirs[key]), key
    assert sum(f".{last}.weight" in key and not ours[key].any() for key in ours) in (8, 16)
    assert create_backbone(name).net.layer1[0].bn2.weight.all()
