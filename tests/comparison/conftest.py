"""Predictions made up, so that what is true of them is known."""

import pytest
import torch

from fovea.evaluation import Predictions


@pytest.fixture
def made_up():
    """Return a function that makes predictions with the given outcomes."""

    def make(correct, k=3, name="run", seed=0, **about):
        generator = torch.Generator().manual_seed(seed)
        correct = torch.as_tensor(correct, dtype=torch.bool)
        n = len(correct)
        labels = torch.arange(n) % k
        says = torch.where(correct, labels, (labels + 1) % k)
        logits = torch.rand(n, k, generator=generator)
        logits[torch.arange(n), says] += 2
        return Predictions(
            torch.arange(n),
            labels,
            logits,
            paths=tuple(f"{i}.png" for i in range(n)),
            class_names=tuple("abcdefghij"[:k]),
            about={"split": "test", "data": "made up", "fingerprint": "f0", "run": name, **about},
        )

    return make
