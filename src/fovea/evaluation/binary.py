"""Two classes, one of them looked for: ROC, precision and recall, thresholds, what they give.

Everywhere ``positive`` is the number of the class that is looked for, and a sample is called
positive if its probability of that class is at least the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics

from fovea.errors import FoveaError
from fovea.evaluation.intervals import bootstrap, wilson
from fovea.evaluation.predictions import Predictions

Rule = Literal["youden", "sensitivity", "specificity"]

_ROUNDING = 1e-12
"""So that 1 - 0.05 reaches 0.95."""


@dataclass(frozen=True)
class Share:
    """``hits`` of ``n`` samples with 95 % bounds; NaN if ``n`` is 0."""

    value: float
    low: float
    high: float
    hits: int
    n: int


def positives_and_scores(
    predictions: Predictions, positive: int = 1
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return (M,) whether each `valid` row is of class ``positive``, and its probability of it.

    Raises:
        FoveaError: there are not two classes, or one of them has no sample.
    """
    if predictions.num_classes != 2:
        raise FoveaError(
            "ROC curves, sensitivity and thresholds are for two classes; there are "
            f"{predictions.num_classes}."
        )
    kept = predictions.select(predictions.valid)
    truth = (kept.labels == positive).numpy()
    for number, members in ((positive, truth), (1 - positive, ~truth)):
        if not members.any():
            raise FoveaError(
                f"There is no sample of the class '{predictions.names[number]}' to measure "
                "sensitivity and specificity with."
            )
    return truth, kept.logits.double().softmax(dim=1)[:, positive].numpy()


def roc_curve(predictions: Predictions, positive: int = 1) -> pd.DataFrame:
    """Return a row a threshold, the strictest first.

    Columns: ``threshold`` (infinite in the first row, where nothing is called positive), ``fpr``
    (1 - specificity), ``tpr`` (sensitivity).
    """
    truth, scores = positives_and_scores(predictions, positive)
    fpr, tpr, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False)
    return pd.DataFrame({"threshold": thresholds, "fpr": fpr, "tpr": tpr})


def precision_recall_curve(predictions: Predictions, positive: int = 1) -> pd.DataFrame:
    """Return a row a threshold, the laxest first: ``threshold``, ``precision``, ``recall``."""
    truth, scores = positives_and_scores(predictions, positive)
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    return pd.DataFrame(
        {"threshold": thresholds, "precision": precision[:-1], "recall": recall[:-1]}
    )


def average_precision(predictions: Predictions, positive: int = 1) -> float:
    """Return the mean of the precisions weighted by the steps in recall, in [0, 1]."""
    return float(metrics.average_precision_score(*positives_and_scores(predictions, positive)))


def choose_threshold(
    val: Predictions, rule: Rule = "youden", value: float = 0.95, positive: int = 1
) -> float:
    """Return the threshold that suits ``val`` best; the strictest of several.

    Args:
        val: of the validation split; chosen on the test split, a threshold flatters it.
        rule: "youden" (the largest sensitivity + specificity), "sensitivity" (at least ``value``,
            with the largest specificity), or "specificity" (the other way round; infinite if only
            calling nothing positive reaches ``value``).
        value: in [0, 1], for the last two.
        positive: number of the class that is looked for.

    Raises:
        FoveaError: as `positives_and_scores` does; by Youden's rule, no threshold is better than
            guessing.

    Source: Youden 1950, "Index for rating diagnostic tests".
    """
    curve = roc_curve(val, positive)
    fpr, tpr = curve["fpr"], curve["tpr"]
    if rule == "youden":
        best = (tpr - fpr).idxmax()
        if tpr[best] <= fpr[best]:
            raise FoveaError("No threshold is better than guessing.")
    elif rule == "sensitivity":
        best = (tpr >= value - _ROUNDING).idxmax()
    else:
        best = tpr[fpr <= 1 - value + _ROUNDING].idxmax()
    return float(curve["threshold"][best])


def at_threshold(predictions: Predictions, threshold: float, positive: int = 1) -> dict[str, Share]:
    """Return ``sensitivity, specificity, ppv, npv, accuracy`` at ``threshold``, Wilson's bounds.

    ``ppv`` and ``npv`` hold for as many positives as there are among these samples, no others.

    Raises:
        FoveaError: as `positives_and_scores` does.
    """
    truth, scores = positives_and_scores(predictions, positive)
    called = scores >= threshold
    parts = {
        "sensitivity": (called & truth, truth),
        "specificity": (~called & ~truth, ~truth),
        "ppv": (called & truth, called),
        "npv": (~called & ~truth, ~called),
        "accuracy": (called == truth, np.ones_like(truth)),
    }
    return {name: _share(int(hits.sum()), int(n.sum())) for name, (hits, n) in parts.items()}


def _share(hits: int, n: int) -> Share:
    low, high = wilson(hits, n)
    return Share(hits / n if n else float("nan"), low, high, hits, n)


def sensitivity_at_specificity(
    predictions: Predictions,
    specificity: float,
    positive: int = 1,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[Share, float]:
    """Return the largest sensitivity with at least ``specificity``, and its threshold.

    The threshold is found on the same samples, so its uncertainty counts: the bounds are those of
    the bootstrap (`intervals.bootstrap`) with a threshold of its own in each resample.

    Raises:
        FoveaError: as `positives_and_scores` does.
    """
    threshold = choose_threshold(predictions, "specificity", specificity, positive)
    truth, scores = positives_and_scores(predictions, positive)
    levels = np.unique(-scores, return_inverse=True)[1]
    count = int(levels.max()) + 1

    def sensitivity(rows: NDArray[np.int64]) -> float:
        found = truth[rows]
        if found.all() or not found.any():
            return float("nan")
        tpr = np.bincount(levels[rows[found]], minlength=count).cumsum() / found.sum()
        fpr = np.bincount(levels[rows[~found]], minlength=count).cumsum() / (~found).sum()
        return float(tpr[fpr <= 1 - specificity + _ROUNDING].max(initial=0.0))

    low, high = np.clip(bootstrap(sensitivity, len(truth), seed, resamples), 0, 1).tolist()
    hits = int((scores[truth] >= threshold).sum())
    return Share(hits / int(truth.sum()), low, high, hits, int(truth.sum())), threshold
