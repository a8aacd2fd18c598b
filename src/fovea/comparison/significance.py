"""What two systems' results on the same samples can tell apart: tests, and their limits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.05
"""Chance of claiming a difference where there is none."""
POWER = 0.8
"""Chance of showing a difference that is as large as what is called detectable."""


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """Return (mid-p, exact p), two-sided, of McNemar's test.

    The mid-p value judges: it keeps to its level without the exact test's waste at small counts,
    and needs no rule for when chi-squared may be used. The exact value is for those who ask for it.

    Source: Fagerland, Lydersen, Laake 2013, "The McNemar test for binary matched-pairs data:
    mid-p and asymptotic are better than exact conditional", BMC Med. Res. Methodol. 13:91.

    Args:
        only_first: samples on which the first alone is right.
        only_second: samples on which the second alone is right.
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0, 1.0
    exact = float(stats.binomtest(only_first, discordant).pvalue)
    point = float(stats.binom.pmf(only_first, discordant, 0.5))
    # With equal counts both tails hold the point, and the exact value is cut off at 1.
    return (1 - point / 2 if only_first == only_second else exact - point), exact


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values adjusted for their number, in the same order; NaN stays out of it.

    Whichever are at or below a level, the chance that any of them is a false claim is at most that.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    given = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(given, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * given[order]))
    return adjusted


def detectable_difference(
    discordant: float, samples: int, level: float = LEVEL, power: float = POWER
) -> float:
    """Return the smallest difference of two accuracies that McNemar's test would probably show.

    It solves ``sqrt(n) d = z_level sqrt(q) + z_power sqrt(q - d^2)`` for d, with q the share of
    samples on which just one of the two is right. Source: Miettinen 1968, "The matched pairs design
    in the case of all-or-none responses", in the form of Connor 1987, "Sample size for testing
    differences in proportions for the paired-sample design", Biometrics 43.

    Args:
        discordant: q in [0, 1].
        samples: n.
        level: two-sided.
        power: chance of showing it.

    Returns:
        a share in (0, 1]; NaN where the two never differ, or differ too seldom for any claim.
    """
    z_level, z_power = stats.norm.isf(level / 2), stats.norm.isf(1 - power)
    inside = z_level**2 * samples - (samples + z_power**2) * (z_level**2 - z_power**2)
    root = math.sqrt(max(0.0, inside))
    difference = math.sqrt(discordant) * (z_level * math.sqrt(samples) + root)
    difference /= samples + z_power**2
    return float(difference) if 0 < difference <= discordant else math.nan


def detectable_from_error(
    error: float, freedom: float, level: float = LEVEL, power: float = POWER
) -> float:
    """Return the smallest difference that a t-test would probably show.

    Source: Cohen 1988, "Statistical Power Analysis", in the usual approximation by central t:
    the sum of both quantiles, times the standard error.

    Args:
        error: standard error of the difference.
        freedom: degrees of freedom of that error.
        level: two-sided.
        power: chance of showing it.
    """
    return error * float(stats.t.isf(level / 2, freedom) + stats.t.isf(1 - power, freedom))
