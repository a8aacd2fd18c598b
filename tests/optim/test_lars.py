"""LARS against the formula of its paper, and against timm's where that adapts."""

from __future__ import annotations

import pytest
import timm.optim
import torch
from torch import nn

from fovea.optim import Lars, param_groups


def trained(make, decay):
    torch.manual_seed(0)
    net = nn.ModuleDict({"head": nn.Linear(5, 3)})
    named = {"head": ["head.weight", "head.bias"]}
    optimizer = make(param_groups(net.named_parameters(), named, 0.5, decay))
    images = torch.randn(8, 5)
    for _ in range(6):
        optimizer.zero_grad()
        net["head"](images).square().mean().backward()
        optimizer.step()
    return net["head"].weight.detach(), net["head"].bias.detach()


def by_hand(decay, momentum=0.9, trust=0.001, lr=0.5):
    """You et al. 2017, algorithm 1, for the weight; plain momentum for the bias."""
    torch.manual_seed(0)
    net = nn.Linear(5, 3)
    images = torch.randn(8, 5)
    velocity = [torch.zeros_like(p) for p in net.parameters()]
    for _ in range(6):
        net.zero_grad()
        net(images).square().mean().backward()
        with torch.no_grad():
            weight, grad = net.weight, net.weight.grad
            local = trust * weight.norm() / (grad.norm() + decay * weight.norm())
            velocity[0] = momentum * velocity[0] + local * (grad + decay * weight)
            velocity[1] = momentum * velocity[1] + net.bias.grad
            weight -= lr * velocity[0]
            net.bias -= lr * velocity[1]
    return net.weight.detach(), net.bias.detach()


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_weights_are_adapted_with_and_without_decay_and_biases_are_not(decay):
    got = trained(lambda groups: Lars(groups, momentum=0.9, weight_decay=decay), decay)
    for ours, expected in zip(got, by_hand(decay), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


def test_with_decay_it_is_timms_and_without_it_timms_is_plain_sgd():
    ours = trained(lambda groups: Lars(groups, momentum=0.9), 0.01)
    theirs = trained(lambda groups: timm.optim.Lars(groups, momentum=0.9), 0.01)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    plain = trained(lambda groups: timm.optim.Lars(groups, momentum=0.9), 0.0)
    sgd = trained(lambda groups: torch.optim.SGD(groups, momentum=0.9), 0.0)
    torch.testing.assert_close(plain, sgd)
