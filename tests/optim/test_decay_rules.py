"""What weight decay spares, by name, against timm's and torchvision's way of sorting."""

from __future__ import annotations

import pytest
import timm
import torchvision
from timm.optim import param_groups_weight_decay
from torch import nn

from fovea.errors import FoveaError
from fovea.optim import decay_rule


def decaying(net, no_decay, names=()):
    rule = decay_rule(net, no_decay, names)
    return {name for name, parameter in net.named_parameters() if rule(name, parameter)}


def named(net, parameters):
    ids = {id(parameter) for parameter in parameters}
    return {name for name, parameter in net.named_parameters() if id(parameter) in ids}


def test_the_usual_rule_is_timms():
    for name in ("resnet18", "test_vit"):
        net = timm.create_model(name)
        spared = net.no_weight_decay() if hasattr(net, "no_weight_decay") else set()
        groups = param_groups_weight_decay(net, 0.1, no_weight_decay_list=spared)
        decayed = [group for group in groups if group["weight_decay"] == 0.1]
        expected = named(net, [p for group in decayed for p in group["params"]])
        assert decaying(net, "norms_and_biases", spared) == expected


def test_norms_alone_are_torchvisions():
    for name in ("resnet18", "convnext_tiny"):
        net = torchvision.models.get_model(name)
        norms, others = torchvision.ops._utils.split_normalization_params(net)
        assert decaying(net, "norms") == named(net, others)
        assert named(net, norms)
    assert "fc.bias" in decaying(torchvision.models.resnet18(), "norms")


def test_nothing_is_spared():
    net = torchvision.models.resnet18()
    assert decaying(net, "nothing", {"conv1.weight"}) == {n for n, _ in net.named_parameters()}


def test_patterns_are_ffcvs_which_passes_over_the_norms_of_the_shortcuts():
    net = torchvision.models.resnet50()
    expected = {name for name, _ in net.named_parameters() if "bn" not in name}
    assert decaying(net, ["*bn?.*"]) == expected
    assert "layer1.0.downsample.1.weight" in expected


def test_what_is_wrong_is_said():
    net = nn.Linear(2, 2)
    with pytest.raises(FoveaError, match="Did you mean 'norms'"):
        decay_rule(net, "norm", ())
    with pytest.raises(FoveaError, match=r"'\*bn\*' matches no parameter.*weight and bias"):
        decay_rule(net, ["*bn*"], ())
