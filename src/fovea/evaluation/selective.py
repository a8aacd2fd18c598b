"""Selective prediction: how often a network is right where it is sure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from fovea.evaluation.predictions import Predictions


def confidence_levels(predictions: Predictions) -> NDArray[np.int64]:
    """Return (N,) int64 which of the distinct confidences each sample has, 0 the highest.

    Samples that are not `valid` have none: they come last, as if their confidence were 0.
    """
    confidence = predictions.confidence.nan_to_num(nan=0.0).numpy()
    return np.unique(-confidence, return_inverse=True)[1]


def coverage_curve(predictions: Predictions) -> pd.DataFrame:
    """Return a row for each threshold that a network could be given, the strictest first.

    Columns: ``coverage`` (share of all samples whose confidence is at least the threshold),
    ``accuracy`` (share of these that are right), ``threshold``. Rows of the predictions that are
    not `valid` have confidence 0.

    Raises:
        FoveaError: there are no predictions.
    """
    sizes, hits = _levels(predictions)
    confidence = predictions.confidence.nan_to_num(nan=0.0).numpy()
    covered = np.cumsum(sizes)
    return pd.DataFrame(
        {
            "coverage": covered / len(predictions),
            "accuracy": np.cumsum(hits) / covered,
            "threshold": np.unique(confidence)[::-1],
        }
    )


def _levels(predictions: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many samples are at each level of confidence, and how many of them are right."""
    predictions.require_samples("Accuracy by confidence")
    levels = confidence_levels(predictions)
    return np.bincount(levels), np.bincount(
        levels[predictions.correct.numpy()], minlength=levels.max() + 1
    )


def hits_among_first(sizes: NDArray[np.int64], hits: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (N,) how many of the 1, 2, … N most confident samples are right.

    Samples of one level come in any order, so this is the mean over all orders.

    Args:
        sizes: how many samples are at each level of confidence, the highest first.
        hits: how many of them are right.
    """
    return np.repeat(hits / np.maximum(1, sizes), sizes).cumsum()


def risk_area(sizes: NDArray[np.int64], hits: NDArray[np.int64]) -> float:
    """Return the mean error rate among the 1, 2, … N most confident samples, in [0, 1].

    Args:
        sizes: how many samples are at each level of confidence, the highest first.
        hits: how many of them are right.
    """
    found = hits_among_first(sizes, hits)
    return float(np.mean(1 - found / np.arange(1, len(found) + 1)))


def aurc(predictions: Predictions) -> float:
    """Return the area under the risk-coverage curve, in [0, 1]; smaller is better.

    Source: Geifman et al. 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers",
    sec. 2, with the risk of Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural
    Networks".

    Raises:
        FoveaError: there are no predictions.
    """
    return risk_area(*_levels(predictions))


def excess_aurc(predictions: Predictions) -> float:
    """Return E-AURC: `aurc` less that of an ordering with all mistakes at the end, in [0, 1].

    The latter is summed exactly; Geifman et al. 2019, sec. 2, use its limit for many samples,
    r + (1 - r) ln(1 - r) with the error rate r.
    """
    wrong = len(predictions) - int(predictions.correct.sum())
    best = risk_area(
        np.array([len(predictions) - wrong, wrong]), np.array([len(predictions) - wrong, 0])
    )
    return aurc(predictions) - best


def accuracy_at_coverage(predictions: Predictions, coverage: float) -> float:
    """Return the accuracy on the most confident ``coverage`` of the samples, rounded up.

    Args:
        predictions: of N >= 1 samples.
        coverage: in (0, 1].
    """
    found = hits_among_first(*_levels(predictions))
    kept = int(np.ceil(coverage * len(found) - 1e-9))  # 0.95 x 20 is a little more than 19
    return float(found[kept - 1] / kept)


def coverage_at_accuracy(predictions: Predictions, accuracy: float) -> float:
    """Return the largest coverage at which ``accuracy`` is reached; 0 if at none."""
    curve = coverage_curve(predictions)
    reached = curve["coverage"][curve["accuracy"] >= accuracy]
    return float(reached.max()) if len(reached) else 0.0


def worst_mistakes(predictions: Predictions, count: int) -> Tensor:
    """Return up to ``count`` rows of wrong predictions, the most confident first, as (M,) int64.

    Rows that are not `valid` have no confidence and are not among them.
    """
    wrong = (~predictions.correct & predictions.valid).nonzero().flatten()
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)[:count]]


def least_sure_hits(predictions: Predictions, count: int) -> Tensor:
    """Return up to ``count`` rows of right predictions, the least sure first, as (M,) int64."""
    right = predictions.correct.nonzero().flatten()
    return right[predictions.confidence[right].argsort(stable=True)[:count]]
