"""Heads: shapes, starting values, and mistakes."""

import itertools
import math

import pytest
import torch
from torch import nn

from fovea.errors import FoveaError
from fovea.models import create_head


def test_linear_head_is_one_linear_layer():
    head = create_head(12, 5)
    features = torch.randn(3, 12)
    expected = nn.functional.linear(features, head.linear.weight, head.linear.bias)
    assert torch.equal(head(features), expected)
    assert head.is_linear
    assert head.num_classes == 5
    assert sum(p.numel() for p in head.parameters()) == 12 * 5 + 5


@pytest.mark.parametrize(("hidden", "widths"), [(8, [12, 8]), ([8, 6], [12, 8, 6])])
def test_mlp_head(hidden, widths):
    head = create_head(12, 5, hidden=hidden)
    assert head(torch.randn(3, 12)).shape == (3, 5)
    assert not head.is_linear
    pairs = [*itertools.pairwise(widths), (widths[-1], 5)]
    assert sum(p.numel() for p in head.parameters()) == sum(a * b + b for a, b in pairs)


def test_zero_start_gives_equal_scores_to_every_class():
    logits = create_head(12, 5, zero_init=True)(torch.randn(3, 12))
    assert torch.equal(logits, torch.zeros(3, 5))


def test_bias_start_is_the_prior():
    prior = math.log(0.01 / 0.99)
    head = create_head(12, 5, zero_init=True, bias_init=prior)
    torch.testing.assert_close(head(torch.randn(3, 12)).sigmoid(), torch.full((3, 5), 0.01))


def test_without_bias_and_scaled():
    head = create_head(12, 5, bias=False, scale=1 / 9)
    features = torch.randn(3, 12)
    torch.testing.assert_close(head(features), features @ head.linear.weight.T / 9)
    assert sum(p.numel() for p in head.parameters()) == 12 * 5


def test_dropout_works_in_training_only():
    head = create_head(400, 5, dropout=0.5)
    features = torch.ones(1, 400)
    assert not torch.equal(head.train()(features), head.train()(features))
    assert torch.equal(head.eval()(features), head.eval()(features))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dropout": 1.5}, "model.head.dropout=1.5"),
        ({"hidden": 0}, "model.head.hidden=0"),
        ({"hidden": [8, -1]}, "hidden"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"scale": 0.0}, "model.head.scale=0.0"),
        ({"bias": False, "bias_init": 0.0}, "model.head.bias=false"),
    ],
)
def test_impossible_heads_are_refused(settings, says):
    with pytest.raises(FoveaError, match=says.replace("[", r"\[")):
        create_head(**{"num_features": 12, "num_classes": 5, **settings})
