"""Intervals: what a score might have been on another sample of images of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri


def wilson(hits: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Any, Any]:
    """Return the lower and the upper bound of a share of ``hits`` in ``n``, floats in [0, 1].

    Arrays give arrays. NaN where ``n`` is 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = normal_quantile(level)
    hits, n = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / n
        centre = (hits + z**2 / 2) / (n + z**2)
        half = z * np.sqrt(n * share * (1 - share) + z**2 / 4) / (n + z**2)
    # At the ends the bounds are 0 and 1 but for rounding.
    low = np.where(hits == 0, share, centre - half)
    high = np.where(hits == n, share, centre + half)
    return (low, high) if low.ndim else (low.item(), high.item())


def normal_quantile(level: float) -> float:
    """Return how many standard deviations on either side hold ``level``: 1.96 for 0.95."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: has to lie between 0 and 1")
    return float(ndtri((1 + level) / 2))


def logit_interval(share: float, error: float, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a ``share`` in (0, 1) with a standard ``error``, inside (0, 1).

    It is symmetric in the log of share / (1 - share), whose standard error is the given one over
    share (1 - share).
    NaN for a share of 0 or 1, or without an error, where nothing can be said.

    Source: Agresti 2013, "Categorical Data Analysis", sec. 3.1.5 (delta method).
    """
    if not (0 < share < 1 and error > 0):
        return float("nan"), float("nan")
    half = normal_quantile(level) * error / (share * (1 - share))
    return float(expit(logit(share) - half)), float(expit(logit(share) + half))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], ArrayLike],
    n: int,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[Any, Any]:
    """Return the interval of ``statistic`` over resampled rows, for test sets of N rows.

    The percentiles of the resamples, moved so that their mean is the value of all rows. Resampling
    biases a score that is no mean over the rows a second time: with 10 samples a class the plain
    percentile interval of the weighted precision has the mean score of such test sets in 78 of 100
    cases, the moved one in 96. The bias of the score itself stays: what an endless test set gave
    is another question. Bounds may lie beyond the range of ``statistic``.

    Rows are drawn with replacement and not stratified: how many images a class has is part of the
    draw. ``statistic`` gets the (N,) row numbers of one resample and should look up what was
    computed once for each row; it returns a number, or an array of several that then share the
    resamples. Resamples in which it is not finite are left out. NaN where all give the same, as for
    one sample, or if all are right: then resampling says nothing. NaN as well where all rows give
    no finite number.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13.

    Args:
        statistic: of the row numbers, (N,) int64 in [0, N).
        n: N >= 1.
        seed: of the draws.
        resamples: how many.
        level: share of the resamples between the percentiles.
    """
    rng = np.random.default_rng(seed)
    whole = np.asarray(statistic(np.arange(n)), np.float64)
    drawn = [np.asarray(statistic(rng.integers(n, size=n)), np.float64) for _ in range(resamples)]
    values = np.stack(drawn).reshape(resamples, -1)
    tail = (1 - level) / 2
    bounds = np.full((2, values.shape[1]), np.nan)
    for column, (found, value) in enumerate(zip(values.T, whole.flat, strict=True)):
        found = found[np.isfinite(found)]
        if np.isfinite(value) and len(found) and found.min() < found.max():
            bounds[:, column] = np.quantile(found, [tail, 1 - tail]) - (found.mean() - value)
    low, high = bounds.reshape(2, *whole.shape)
    return (low, high) if low.ndim else (low.item(), high.item())
