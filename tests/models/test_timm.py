"""timm's networks through the same face."""

import pytest
import timm
import torch

from fovea.errors import FoveaError
from fovea.models import create_backbone

TINY = sorted(timm.list_models("test_*"))


def test_there_are_tiny_networks_of_several_kinds():
    assert len(TINY) >= 8


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("name", TINY)
def test_tiny_networks_of_every_kind(name, size):
    torch.manual_seed(0)
    backbone = create_backbone(name, library="timm", in_channels=1, image_size=size)
    images = torch.randn(2, 1, size, size)
    assert backbone(images).shape == (2, backbone.num_features)
    backbone(images).sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert next(iter(backbone.stages)) == "stem"
    assert len(backbone.stages) >= 3


def test_stage_names_are_what_their_tensors_share():
    stages = create_backbone("test_convnext", library="timm", image_size=64).stages
    assert list(stages) == ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "norm"]
    assert stages["stages.2"] == ["net.stages.2"]
    assert stages["norm"] == ["net.head"]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("caformer_s18", ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "norm"]),
        ("rdnet_tiny", ["stem", *(f"dense_stages.{i}" for i in range(7)), "norm"]),
        ("eva02_tiny_patch14_224", ["stem", *(f"blocks.{i}" for i in range(12)), "fc_norm"]),
        ("mobilenetv3_small_050", ["stem", *(f"blocks.{i}" for i in range(6)), "conv_head"]),
    ],
)
def test_stages_of_networks_whose_grouping_is_unusual(name, stages):
    """No matcher at all; none as coarse; tables without parameters; a convolution at the end."""
    with torch.device("meta"):
        assert list(create_backbone(name, library="timm").stages) == stages


def test_positions_and_tokens_do_not_decay():
    backbone = create_backbone("test_vit", library="timm", image_size=64)
    assert backbone.no_weight_decay() == {"net.cls_token", "net.pos_embed"}


def test_stochastic_depth_reaches_the_blocks():
    backbone = create_backbone("test_vit", library="timm", image_size=64, drop_path=0.2)
    depths = [m.drop_prob for m in backbone.modules() if type(m).__name__ == "DropPath"]
    assert max(depths) == pytest.approx(0.2)


def test_options_reach_the_network():
    backbone = create_backbone("test_vit", library="timm", image_size=64, qkv_bias=False)
    assert backbone.net.blocks[0].attn.qkv.bias is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_smal_patch16_224", "vit_small_patch16_224"),
        ("resnet18.imagenet", "resnet18.a1_in1k"),
        ("nothing_like_it", "list_models"),
    ],
)
def test_unknown_names_get_the_nearest(name, says):
    with pytest.raises(FoveaError, match=says):
        create_backbone(name, library="timm")


def test_settings_the_network_does_not_have():
    with pytest.raises(FoveaError, match="colour"):
        create_backbone("test_resnet", library="timm", colour=True)
    with pytest.raises(FoveaError, match="no stochastic depth"):
        create_backbone("vgg11", library="timm", image_size=32, drop_path=0.1)


def test_building_does_not_depend_on_a_look_at_the_patches():
    """The look at a ViT's patches draws no random numbers: same seed, timm's own weights."""
    torch.manual_seed(3)
    backbone = create_backbone("test_vit", library="timm", image_size=64)
    torch.manual_seed(3)
    reference = timm.create_model("test_vit", num_classes=0, img_size=64, patch_size=8)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, backbone.net.state_dict()[name]), name
