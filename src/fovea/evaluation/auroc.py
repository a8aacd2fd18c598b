"""The area under the ROC curve of every class against the rest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fovea.evaluation.intervals import logit_interval
from fovea.evaluation.predictions import Predictions


def one_vs_rest_auroc(predictions: Predictions) -> NDArray[np.float64]:
    """Return (K,) AUROC of each class against all others, by its probability, in [0, 1].

    NaN for a class that no sample, or every sample, belongs to. Rows of the predictions that are
    not `valid` are left out.
    """
    areas = np.full(predictions.num_classes, np.nan)
    for number, positive, shares in _each_class(predictions):
        areas[number] = shares[positive].mean()
    return areas


def macro_auroc_interval(predictions: Predictions, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean AUROC over the classes that occur; of two classes, of both.

    Every sample adds to the area of its own class and, as a negative, to all others; its parts are
    summed before they are squared, so that the areas may depend on one another. A class's only
    sample adds nothing to the variance. NaN if all areas are 1.

    Source: DeLong et al. 1988 (see `placements`), eq. 6; the interval is made in logits.
    """
    areas: list[float] = []
    parts = np.zeros(int(predictions.valid.sum()))
    for _, positive, shares in _each_class(predictions):
        area = float(shares[positive].mean())
        areas.append(area)
        for kind in (positive, ~positive):
            n = int(np.count_nonzero(kind))
            # The square root makes the sample variance out of the sum of squares.
            parts[kind] += (shares[kind] - area) / n * np.sqrt(n / max(1, n - 1))
    if not areas:
        return float("nan"), float("nan")
    error = np.sqrt(np.square(parts).sum()) / len(areas)
    return logit_interval(float(np.mean(areas)), float(error), level)


def _each_class(
    predictions: Predictions,
) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[np.float64]]]:
    """Give number, members and `placements` of each class that some but not all samples are of."""
    kept = predictions.select(predictions.valid)
    labels = kept.labels.numpy()
    probabilities = kept.logits.double().softmax(dim=1).T.contiguous().numpy()
    for number, scores in enumerate(probabilities):
        positive = labels == number
        if positive.any() and not positive.all():
            yield number, positive, placements(scores, positive)


def placements(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (N,) shares: of the negatives below a positive, of the positives above a negative.

    Equal scores count half. The mean over the positives, as that over the negatives, is the AUROC.

    Args:
        scores: (N,), high for the positives.
        positive: (N,), with at least one of either kind.

    Source: DeLong et al. 1988, "Comparing the areas under two or more correlated receiver operating
    characteristic curves: a nonparametric approach".
    """
    ups, downs = np.sort(scores[positive]), scores[~positive]
    # Of each negative: how many positives are below it, and how many are not above it.
    below = np.searchsorted(ups, downs, side="left")
    not_above = np.searchsorted(ups, downs, side="right")
    # Positive number i, in ascending order, is above a negative if i positives or fewer are not.
    passed = np.cumsum(np.bincount(not_above, minlength=len(ups) + 1))[:-1]
    reached = np.cumsum(np.bincount(below, minlength=len(ups) + 1))[:-1]
    shares = np.empty(len(scores))
    shares[~positive] = 1 - (below + not_above) / (2 * len(ups))
    at = np.flatnonzero(positive)[np.argsort(scores[positive], kind="stable")]
    shares[at] = (passed + reached) / (2 * len(downs))
    return shares
