"""Operations against published tables, and timings that keep to their budget."""

import time

import lightning
import pytest
import torch
from torch import nn
from torchvision import models

from fovea.judging import count_cost, count_flops, measure_cost


def trainer():
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_b_16"])
def test_operations_are_twice_the_multiply_adds_that_torchvision_publishes(name):
    published = models.get_model_weights(name).IMAGENET1K_V1.meta
    network = models.get_model(name)
    cost = count_cost(network, trainer(), (3, 224, 224))
    assert cost["flops"] / 2e9 == pytest.approx(published["_ops"], abs=6e-4)
    assert cost["parameters"] == published["num_params"]
    assert network.training, "the mode is put back"


def test_a_compiled_network_is_counted_too():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    network.compile(backend="eager")
    assert count_flops(network, (3, 2, 2)) == 2 * 12 * 5


def test_what_cannot_be_counted_is_said_and_spoils_nothing():
    class Odd(nn.Linear):
        def forward(self, images):
            raise ValueError("no")

    assert count_cost(Odd(2, 2), trainer(), (3, 2, 2))["flops"] is None


class Slow(nn.Module):
    """Takes 10 ms an image."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 5)
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        time.sleep(0.01 * len(images))
        return self.linear(images.flatten(1))


def test_a_slow_network_is_timed_on_a_smaller_batch():
    network = Slow()
    cost = measure_cost(network, trainer(), (3, 2, 2), batch_size=64, budget=0.3)
    assert 1 <= cost["batch_size"] < 64
    assert max(network.sizes) == cost["batch_size"]
    assert cost["latency_p95_ms"] >= cost["latency_ms"] >= 10
    assert cost["images_per_second"] <= 100
    assert cost["device"] == "cpu"
    assert cost["threads"] == torch.get_num_threads()
    assert cost["precision"] == "32-true"


def test_a_fast_network_is_timed_at_the_batch_of_the_evaluation():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    cost = measure_cost(network, trainer(), (3, 2, 2), batch_size=32, budget=0.3)
    assert cost["batch_size"] == 32
    assert cost["flops"] == 120
