"""Accuracy where several classes may be right for an image."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fovea.evaluation.intervals import wilson
from fovea.evaluation.predictions import Predictions


def real_accuracy(predictions: Predictions, right: Sequence[Collection[int]]) -> dict[str, float]:
    """Return the share of images whose most probable class is one of those that are right.

    Images with no right class are left out. A row that is not `valid` counts as wrong.

    Args:
        predictions: of N samples.
        right: N collections of class numbers, as the predictions number the classes.

    Returns:
        ``real_top1`` in [0, 1] (NaN without any labelled image), its 95 % Wilson bounds
        ``real_top1_low`` and ``real_top1_high``, and ``real_samples``, the images that count.

    Source: Beyer et al. 2020 (arXiv 2006.07159), section 4.
    """
    assert len(right) == len(predictions)
    rows = zip(predictions.predicted.tolist(), right, predictions.valid.tolist(), strict=True)
    hits = [good and number in allowed for number, allowed, good in rows if len(allowed)]
    low, high = wilson(sum(hits), len(hits))
    share = sum(hits) / len(hits) if hits else float("nan")
    return {
        "real_top1": share,
        "real_top1_low": low,
        "real_top1_high": high,
        "real_samples": len(hits),
    }
