"""Predictions of a classifier that is right about two times in three."""

import torch

from fovea.evaluation import Predictions


def made(n: int, k: int, seed: int = 0, ties: bool = False, strength: float = 2.0) -> Predictions:
    """Return N samples of K classes, a quarter of class 0 for sure; ties: whole logits."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    labels[: n // 2 : 2] = 0
    labels[-k:] = torch.arange(k)  # none is empty
    logits = torch.randn(n, k, generator=generator)
    logits[torch.arange(n), labels] += strength
    return Predictions(torch.arange(n), labels, logits.round() if ties else logits)


def take(predictions: Predictions, rows) -> Predictions:
    """Return those rows, as often as they are named."""
    rows = torch.as_tensor(rows)
    return Predictions(torch.arange(len(rows)), predictions.labels[rows], predictions.logits[rows])
