"""Calibration: whether a network is right as often as it says it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq

from fovea.evaluation.intervals import wilson
from fovea.evaluation.predictions import Predictions

_CHUNK = 1024
"""Rows of logits that are taken at once in float64: few enough for the processor's cache."""
_LIMITS = (1e-12, 1e12)
"""Of 1 / T: beyond them a slope is a matter of rounding."""
_RULED_OUT = -1e30
"""Stands for a logit of -infinity, which times its probability of 0 would be NaN."""


def reliability(predictions: Predictions, bins: int = 15, adaptive: bool = False) -> pd.DataFrame:
    """Return a row a bin of confidence: how sure the network was, how often it was right.

    Columns: ``low`` and ``high`` (the bin is (low, high], the first one includes 0), ``samples``,
    ``confidence`` and ``accuracy`` (means; NaN in an empty bin), ``accuracy_low`` and
    ``accuracy_high`` (95 % Wilson bounds).

    Args:
        predictions: rows that are not `valid` are left out.
        bins: how many.
        adaptive: bins of as many samples each, instead of equal width; equal confidences share one.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", sec. 2; equal counts:
    Nguyen & O'Connor 2015, "Posterior calibration and exploratory analysis for NLP models".
    """
    confidence = predictions.confidence[predictions.valid].numpy()
    correct = predictions.correct[predictions.valid].numpy()
    edges = np.linspace(0, 1, bins + 1)
    if adaptive and len(confidence):
        edges = np.quantile(confidence, edges)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    samples = np.bincount(place, minlength=bins)
    hits = np.bincount(place, weights=correct, minlength=bins)
    low, high = wilson(hits, samples)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "low": edges[:-1],
                "high": edges[1:],
                "samples": samples,
                "confidence": np.bincount(place, weights=confidence, minlength=bins) / samples,
                "accuracy": hits / samples,
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )


def calibration_error(table: pd.DataFrame) -> float:
    """Return the expected calibration error of a table of `reliability`, in [0, 1].

    The mean over the samples of how far the accuracy of their bin is from its confidence.

    Source: Guo et al. 2017, eq. 3.
    """
    gaps = (table["accuracy"] - table["confidence"]).abs()
    total = table["samples"].sum()
    return float((gaps * table["samples"]).sum() / total) if total else float("nan")


def max_calibration_error(table: pd.DataFrame) -> float:
    """Return the largest gap of a bin in a table of `reliability`, in [0, 1].

    Source: Guo et al. 2017, eq. 5.
    """
    return float((table["accuracy"] - table["confidence"]).abs().max())


def fit_temperature(val: Predictions) -> float | None:
    """Return the temperature T > 0 for which logits / T have the least NLL on ``val``.

    None where no T is the best: if all samples are right, as every smaller T is better then, and if
    the network is no better than chance, as every larger one is. Rows that are not `valid`, and
    those whose label was ruled out, are left out.

    The NLL is convex in 1 / T; this finds the root of its derivative to 1e-6, relative.

    Raises:
        FoveaError: there are no predictions.

    Source: Guo et al. 2017, sec. 4.2.
    """
    val.require_samples("The temperature")
    slope = _Slope(val)
    if not slope.at_zero() < 0 < slope.at_infinity():  # NaN without a row
        return None
    low = high = 1.0
    while slope(low) >= 0 and low > _LIMITS[0]:
        low /= 4
    while slope(high) < 0 and high < _LIMITS[1]:
        low, high = high, high * 4
    if slope(low) >= 0 or slope(high) < 0:
        return None
    return float(1 / brentq(slope, low, high, xtol=1e-12 * high, rtol=1e-6))


class _Slope:
    """The derivative of the NLL with respect to 1 / T, which grows with 1 / T."""

    def __init__(self, val: Predictions) -> None:
        own = val.logits.gather(1, val.labels[:, None])[:, 0]
        kept = val.select(val.valid & own.isfinite())
        self.known: dict[float, float] = {}
        # The largest logit of each row becomes 0: no exponential overflows.
        self.logits = kept.logits - kept.logits.amax(dim=1, keepdim=True)
        self.own = self.logits.gather(1, kept.labels[:, None])[:, 0].double()

    def at_zero(self) -> float:
        """Return the limit for an infinite T, where all classes are equally probable."""
        means = [
            chunk.double().masked_fill(chunk.isinf(), torch.nan).nanmean(dim=1)
            for chunk in self.logits.split(_CHUNK)
        ]
        return float((torch.cat(means) - self.own).mean()) if means else 0.0

    def at_infinity(self) -> float:
        """Return the limit for T = 0, where all probability is on the largest logit."""
        return float(-self.own.mean())

    def __call__(self, inverse: float) -> float:
        if inverse not in self.known:
            means = []
            for chunk in self.logits.split(_CHUNK):
                rows = chunk.double().clamp_(min=_RULED_OUT)
                means.append(((rows * inverse).softmax(dim=1) * rows).sum(dim=1))
            self.known[inverse] = float((torch.cat(means) - self.own).mean())
        return self.known[inverse]


def with_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """Return ``predictions`` with all logits divided by ``temperature``, positive and finite."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: has to be positive and finite")
    return dataclasses.replace(predictions, logits=predictions.logits / temperature)
