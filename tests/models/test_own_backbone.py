"""A backbone of one's own, and stages that are wrong."""

import copy

import pytest
import torch
from torch import nn

from fovea.errors import FoveaError
from fovea.models import Backbone, create_head, load_weights
from fovea.models.stages import minimal_prefixes, name_groups

STAGES = {"stem": ["net.0"], "last": ["net.2"]}


class TwoLayers(Backbone):
    """What a user writes: a network, its width, its stages."""

    def __init__(self, in_channels=3, image_size=8, width=4, stages=STAGES):
        net = nn.Sequential(
            nn.Conv2d(in_channels, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, width, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        super().__init__(
            net, num_features=width, stages=stages, name="two_layers", image_size=image_size
        )


def test_it_works_like_any_other(tmp_path):
    backbone = TwoLayers()
    assert backbone(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    assert backbone.no_weight_decay() == set()
    with pytest.raises(FoveaError, match="forward_features"):
        backbone.forward_features(torch.randn(2, 3, 8, 8))
    torch.save(TwoLayers().net.state_dict(), tmp_path / "w.pth")
    report = load_weights(backbone, create_head(4, 2), str(tmp_path / "w.pth"))
    assert (report.matched, report.total) == (4, 4)
    assert report.head == "new (the weights hold no classifier)"
    with pytest.raises(FoveaError, match="neither a file nor weights"):
        load_weights(backbone, None, "IMAGENET1K_V1")


def test_it_can_be_copied():
    backbone = TwoLayers()
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(copy.deepcopy(backbone)(images), backbone(images))


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ({"stem": ["net.0"]}, "'net.2.weight' is in none"),
        ({"stem": ["net.0"], "all": ["net"]}, r"'net.0.weight' is in 2 \(stem, all\)"),
        ({"stem": ["net.0"], "last": ["net.2", "net.3"]}, "net.3"),
    ],
)
def test_wrong_stages_are_named(stages, says):
    with pytest.raises(FoveaError, match=says):
        TwoLayers(stages=stages)


def test_prefixes_are_the_shortest_that_tell_groups_apart():
    groups = {
        "a": ["x.0.w", "x.0.b", "y.w"],
        "b": ["x.1.w", "x.10.w"],
        "c": ["z"],
    }
    assert minimal_prefixes(groups) == {"a": ["x.0", "y"], "b": ["x.1", "x.10"], "c": ["z"]}


def test_groups_are_named_by_what_they_share():
    groups = [
        ["cls", "patch.w"],
        ["blocks.0.a.w"],
        ["blocks.1.a.w", "blocks.1.b.w", "norm.w", "norm.b"],
    ]
    assert list(name_groups(groups)) == ["stem", "blocks.0", "blocks.1", "norm"]
    groups = [["conv.w"], ["s.0.w"], ["s.1.w", "head.norm.w", "head.fc.w"]]
    assert list(name_groups(groups)) == ["stem", "s.0", "s.1", "final"]
