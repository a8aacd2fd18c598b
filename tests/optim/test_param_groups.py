"""Parameter groups against timm's own grouping and by hand."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from fovea.errors import FoveaError
from fovea.optim import assign_stages, layer_scales, match_scales, param_groups


def settings_of(groups: list[dict]) -> dict[str, tuple[float, float]]:
    """Return name -> (learning rate, weight decay)."""
    return {
        name: (group["lr"], group["weight_decay"])
        for group in groups
        for name, _ in group["params"]
    }


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=4)


def vit_stages(vit: nn.Module) -> dict[str, list[str]]:
    prefixes = {"stem": ["patch_embed", "cls_token", "pos_embed"]}
    prefixes |= {f"blocks.{i}": [f"blocks.{i}"] for i in range(4)}
    prefixes |= {"norm": ["norm"], "head": ["head"]}
    return assign_stages([name for name, _ in vit.named_parameters()], prefixes)


def test_layer_decay_is_timms_for_a_vision_transformer(vit: nn.Module) -> None:
    """But for the final norm: timm gives it the rate of the last block, MAE and BEiT the head's."""
    groups = param_groups(
        vit.named_parameters(), vit_stages(vit), lr=0.5, weight_decay=0.05, layer_decay=0.75,
        no_decay_names=vit.no_weight_decay(),
    )  # fmt: skip
    expected = {}
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    for group in param_groups_layer_decay(
        vit, 0.05, no_weight_decay_list=vit.no_weight_decay(), layer_decay=0.75
    ):
        for parameter in group["params"]:
            name = names[id(parameter)]
            scale = 1.0 if name.startswith("norm.") else group["lr_scale"]
            expected[name] = (0.5 * scale, group["weight_decay"])
    got = settings_of(groups)
    assert got.keys() == expected.keys()
    for name, wanted in expected.items():
        assert got[name] == pytest.approx(wanted), name


def test_scales_by_hand(vit: nn.Module) -> None:
    scales = layer_scales(vit.named_parameters(), vit_stages(vit), 0.5)
    assert scales == {
        "stem": 0.5**5, "blocks.0": 0.5**4, "blocks.1": 0.5**3, "blocks.2": 0.25, "blocks.3": 0.5,
        "norm": 1.0, "head": 1.0,
    }  # fmt: skip
    assert next(iter(scales)) == "stem"


def test_decay_is_timms_for_a_resnet() -> None:
    net = torchvision.models.resnet18()
    stages = {"everything": [name for name, _ in net.named_parameters()]}
    got = settings_of(param_groups(net.named_parameters(), stages, lr=0.1, weight_decay=1e-4))
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    for group in param_groups_weight_decay(net, 1e-4):
        for parameter in group["params"]:
            assert got[names[id(parameter)]] == (0.1, group["weight_decay"])


def net_and_stages() -> tuple[nn.Module, dict[str, list[str]]]:
    net = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("stem", "block", "head")})
    names = [name for name, _ in net.named_parameters()]
    return net, assign_stages(names, {name: [name] for name in ("stem", "block", "head")})


def test_frozen_parameters_are_in_the_groups_from_the_start() -> None:
    net, stages = net_and_stages()
    net["stem"].requires_grad_(False)
    groups = param_groups(net.named_parameters(), stages, lr=1.0, weight_decay=0.1)
    grouped = [name for group in groups for name, _ in group["params"]]
    assert sorted(grouped) == sorted(name for name, _ in net.named_parameters())
    optimizer = torch.optim.AdamW(groups)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_no_more_groups_than_settings() -> None:
    net, stages = net_and_stages()
    plain = param_groups(net.named_parameters(), stages, lr=1.0, weight_decay=0.1)
    assert [group["name"] for group in plain] == ["stem..head", "stem..head (no decay)"]
    histories = {name: name.startswith("head") for name, _ in net.named_parameters()}
    split = param_groups(
        net.named_parameters(), stages, lr=1.0, weight_decay=0.1, split_by=histories
    )
    assert [group["name"] for group in split] == [
        "stem..block", "stem..block (no decay)", "head", "head (no decay)",
    ]  # fmt: skip


def test_a_prefix_ends_at_a_dot() -> None:
    names = ["blocks.1.weight", "blocks.10.weight", "cls_token"]
    stages = assign_stages(names, {"a": ["blocks.1"], "b": ["blocks.10", "cls_token"]})
    assert stages == {"a": ["blocks.1.weight"], "b": ["blocks.10.weight", "cls_token"]}
    with pytest.raises(AssertionError, match=r"blocks\.10\.weight"):
        assign_stages(names, {"a": ["blocks.1"], "b": ["cls_token"]})


def test_factors_by_name_go_to_the_first_pattern_that_matches() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    names = [name for name, _ in net.named_parameters()]
    rules = [
        {"names": "1.bias", "lr": 64.0, "weight_decay": 1 / 64},
        {"names": "*.bias", "lr": 2.0, "weight_decay": 0.0},
    ]
    groups = param_groups(
        net.named_parameters(), {"all": names}, lr=0.5, weight_decay=0.25,
        decay_rule=lambda name, parameter: True, param_scales=match_scales(names, rules),
    )  # fmt: skip
    assert settings_of(groups) == {
        "0.weight": (0.5, 0.25), "1.weight": (0.5, 0.25), "2.weight": (0.5, 0.25),
        "1.bias": (32.0, 0.25 / 64), "0.bias": (1.0, 0.0), "2.bias": (1.0, 0.0),
    }  # fmt: skip
    assert "all (lr x64, decay x0.015625)" in [group["name"] for group in groups]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([{"names": "3.*", "lr": 1.0, "weight_decay": 1.0}], "matches no parameter"),
        ([{"names": "*", "lr": 1.0, "weight_decay": 1.0}] * 2, "after rules that take them all"),
        ([{"names": "*", "lr": 0.0, "weight_decay": 1.0}], "lr must be above 0"),
        ([{"names": "*", "lr": 1.0}], "takes names, lr and weight_decay"),
    ],
)
def test_factors_that_decide_nothing_are_refused(rules: list, says: str) -> None:
    with pytest.raises(FoveaError, match=says):
        match_scales(["0.weight"], rules)
