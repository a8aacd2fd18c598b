"""The area under the ROC curve of every class against the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fovea.evaluation.intervals import logit_interval

if TYPE_CHECKING:
    from fovea.evaluation.predictions import Predictions


def one_vs_rest_auroc(predictions: Predictions) -> NDArray[np.float64]:
    """Return (K,) AUROC of each class against all others, by its probability, in [0, 1].

    NaN for a class that no sample, or every sample, belongs to. Rows of the predictions that are
    not `valid` are left out.
    """
    return predictions.class_areas[0].copy()


def macro_auroc_interval(predictions: Predictions, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the mean AUROC over the classes that occur; of two classes, of both.

    A class's only sample adds nothing to the variance. NaN if all areas are 1.

    Source: DeLong et al. 1988 (see `placements`), eq. 6; the interval is made in logits.
    """
    areas, parts = predictions.class_areas
    areas = areas[~np.isnan(areas)]
    if not len(areas):
        return float("nan"), float("nan")
    error = np.sqrt(np.square(parts).sum()) / len(areas)
    return logit_interval(float(areas.mean()), float(error), level)


def areas_and_parts(
    logits: Tensor, labels: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (K,) AUROC of each class against the rest, and each sample's part in their sum.

    A sample adds to the area of its own class and, as a negative, to all others; its parts are
    summed, (N,), before anyone squares them, so that the areas may depend on one another. The sum
    of their squares is the variance of the sum of the areas. The area is NaN for a class that no
    sample, or every sample, belongs to.

    Args:
        logits: (N, K), each row with probabilities.
        labels: (N,) int64 in [0, K).

    Source: DeLong et al. 1988 (see `placements`), eq. 6.
    """
    areas, parts = np.full(logits.shape[1], np.nan), np.zeros(len(logits))
    classes = labels.numpy()
    probabilities = logits.double().softmax(dim=1).T.contiguous().numpy()
    for number, scores in enumerate(probabilities):
        positive = classes == number
        if not positive.any() or positive.all():
            continue
        shares = placements(scores, positive)
        areas[number] = shares[positive].mean()
        for kind in (positive, ~positive):
            n = int(np.count_nonzero(kind))
            # The square root makes the sample variance out of the sum of squares.
            parts[kind] += (shares[kind] - areas[number]) / n * np.sqrt(n / max(1, n - 1))
    return areas, parts


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
