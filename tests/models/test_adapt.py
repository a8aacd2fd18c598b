"""Weights fitted to other shapes, against hand calculation and timm."""

import pytest
import torch
from timm.models._manipulate import adapt_input_conv
from torch import nn
from torch.nn import functional as F

from fovea.models.adapt import (
    convert_first_linear,
    fit_channels,
    fit_dense,
    fit_first_conv,
    fit_positions,
)
from fovea.models.checkpoint import find_prefix, tensors_in


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8])
def test_channels_as_timm_does_it(channels):
    weight = torch.randn(5, 3, 7, 7)
    torch.testing.assert_close(fit_channels(weight, channels), adapt_input_conv(channels, weight))


def test_one_channel_to_three_keeps_the_response_to_grey():
    weight, grey = torch.randn(5, 1, 3, 3), torch.randn(2, 1, 9, 9)
    rgb = grey.expand(-1, 3, -1, -1)
    torch.testing.assert_close(F.conv2d(rgb, fit_channels(weight, 3)), F.conv2d(grey, weight))


def test_larger_patches_respond_to_enlarged_images_as_before():
    """FlexiViT: exact where the new patch is an upsampling of the old one."""
    weight, patch = torch.randn(6, 3, 4, 4), torch.randn(1, 3, 4, 4)
    fitted, done = fit_first_conv(weight, torch.Size([6, 3, 8, 8]))
    larger = F.interpolate(patch, size=(8, 8), mode="bicubic", antialias=True)
    assert done == "kernel 4x4 -> 8x8"
    torch.testing.assert_close(
        F.conv2d(larger, fitted), F.conv2d(patch, weight), rtol=1e-4, atol=1e-4
    )


def test_other_outputs_do_not_fit():
    assert fit_first_conv(torch.zeros(6, 3, 4, 4), torch.Size([7, 3, 4, 4])) is None
    assert fit_first_conv(torch.zeros(6, 3), torch.Size([6, 3, 4, 4])) is None


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_positions_keep_prefix_tokens_and_linear_ramps(prefix):
    old = torch.arange(4.0).repeat(4, 1)
    table = torch.cat([torch.full((prefix,), 9.0), old.flatten()])[None, :, None]
    fitted, done = fit_positions(table, torch.Size([1, prefix + 64, 1]))
    assert done == "positions 4x4 -> 8x8"
    assert fitted.shape == (1, prefix + 64, 1)
    assert (fitted[0, :prefix] == 9).all()
    grid = fitted[0, prefix:, 0].view(8, 8)
    torch.testing.assert_close(grid, grid[:1].expand(8, 8), atol=1e-4, rtol=0)
    assert (grid[0].diff() > 0).all()


@pytest.mark.parametrize("shape", [(1, 50, 8), (1, 7, 4), (50, 4)])
def test_positions_that_do_not_fit(shape):
    assert fit_positions(torch.zeros(1, 17, 4), torch.Size(shape)) is None


@pytest.mark.parametrize(("old", "new"), [(7, 1), (7, 2), (6, 4), (2, 7)])
def test_dense_layer_on_another_map_is_pooling_before_the_old_one(old, new):
    channels = 3
    dense = nn.Linear(channels * old * old, 5)
    maps = torch.randn(4, channels, new, new)
    fitted = fit_dense(dense.weight, channels * new * new, channels)
    expected = dense(F.adaptive_avg_pool2d(maps, old).flatten(1))
    torch.testing.assert_close(F.linear(maps.flatten(1), fitted, dense.bias), expected)


@pytest.mark.parametrize("shape", [(5, 3 * 49), (4, 2 * 49), (5,)])
def test_dense_layers_of_other_networks_are_left_as_they_are(shape):
    net = nn.Sequential(nn.Linear(2 * 4, 5))
    state = {"0.weight": torch.zeros(shape)}
    assert convert_first_linear(net, state, "0.weight", channels=2) is state


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (["a.w", "b.0.w"], ""),
        (["module.a.w", "module.b.0.w"], "module."),
        (["q.enc.a.w", "q.enc.b.0.w", "k.enc.a.w", "queue"], "q.enc."),
        (["head.a.w", "net.a.w", "net.b.0.w"], "net."),
        (["module.x", "module.y"], "module."),
        ([], ""),
    ],
)
def test_prefixes(keys, prefix):
    assert find_prefix(keys, ["a.w", "b.0.w"]) == prefix


def test_the_nest_is_named():
    tensor = torch.zeros(1)
    assert tensors_in({"model": {"state_dict": {"w": tensor}}})[1] == "model.state_dict"
    assert tensors_in({"w": tensor, "step": 3}) == ({"w": tensor}, "")
    assert tensors_in({"model_ema": None, "model": {"w": tensor}})[1] == "model"
