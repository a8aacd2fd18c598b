"""Two systems compared: how far apart they are, and whether that may be claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fovea.comparison.entries import Entry
from fovea.comparison.resampling import Estimate, Resampled
from fovea.comparison.results import SHARES
from fovea.comparison.significance import (
    LEVEL,
    detectable_difference,
    detectable_from_error,
    holm,
    mcnemar,
)
from fovea.comparison.systems import System


@dataclass(frozen=True, eq=False)
class Pair:
    """Two systems, the second compared with the first.

    Attributes:
        first: number of the system.
        second: number of the other.
        differences: of each score, second less first; accuracies as shares, NLL in nats.
        only_first: samples on which only the first is right, of one run each (the mean over all
            pairs of their runs).
        only_second: likewise.
        p_value: of no difference in top-1: McNemar's mid-p for one run each, else of a t-test.
        exact_p: of McNemar's exact test; None where seeds come into it, if only of one of the two.
        adjusted_p: by Holm, for the number of comparisons.
        detectable: the smallest difference in top-1 that would have been shown with a chance of
            80 %; NaN where they differ too seldom, or their seeds are too few, for any claim.
    """

    first: int
    second: int
    differences: dict[str, Estimate]
    only_first: float
    only_second: float
    p_value: float
    exact_p: float | None
    adjusted_p: float
    detectable: float

    @property
    def shown(self) -> bool:
        """Whether a difference in top-1 may be claimed."""
        return self.adjusted_p <= LEVEL

    def interval(self, score: str) -> tuple[float, float]:
        """Return the 95 % interval of a difference; of shares within [-1, 1]."""
        low, high = self.differences[score].interval
        return (low, high) if score not in SHARES else (max(-1.0, low), min(1.0, high))


def outcomes(entries: Sequence[Entry]) -> NDArray[np.bool_]:
    """Return (N, M) which run is right on which sample."""
    return np.stack([entry.results.correct for entry in entries], axis=1)


def compare_pairs(
    entries: Sequence[Entry],
    systems: Sequence[System],
    chosen: Sequence[tuple[int, int]],
    resampled: dict[str, Resampled],
) -> list[Pair]:
    """Return each of the ``chosen`` pairs of systems, with claims corrected for their number.

    Args:
        entries: the M runs, aligned.
        systems: what they are runs of.
        chosen: numbers of two systems each.
        resampled: for each score.
    """
    correct = outcomes(entries)
    level = LEVEL / len(chosen)  # of the first step of Holm's procedure
    facts = []
    for first, second in chosen:
        differences = {name: r.difference(first, second) for name, r in resampled.items()}
        a, b = (correct[:, list(systems[i].columns)] for i in (first, second))
        facts.append((first, second, differences, *_judge_pair(a, b, differences["top1"], level)))
    adjusted = holm([p_value for *_, p_value, _, _ in facts])
    return [
        Pair(i, j, differences, only_i, only_j, p, exact, float(adjusted_p), detectable)
        for (i, j, differences, only_i, only_j, p, exact, detectable), adjusted_p in zip(
            facts, adjusted, strict=True
        )
    ]


def _judge_pair(
    a: NDArray[np.bool_], b: NDArray[np.bool_], difference: Estimate, level: float
) -> tuple[float, float, float, float | None, float]:
    """Return ``only_first, only_second, p_value, exact_p, detectable`` of a `Pair`.

    Args:
        a: (N, n) which run of the first system is right on which sample.
        b: (N, m) likewise of the second.
        difference: of their top-1.
        level: that a single claim has to keep to.
    """
    right_a, right_b = a.mean(axis=1), b.mean(axis=1)
    only_a, only_b = float((right_a * (1 - right_b)).sum()), float((right_b * (1 - right_a)).sum())
    if a.shape[1] == b.shape[1] == 1:
        p_value, exact = mcnemar(round(only_a), round(only_b))
        detectable = detectable_difference((only_a + only_b) / len(a), len(a), level)
        return only_a, only_b, p_value, exact, detectable
    # No test on so few samples as they differ on can reach less than the sign test's best.
    floor = min(1.0, 2 * 0.5 ** int((right_a != right_b).sum()))
    detectable = detectable_from_error(difference.error, difference.freedom, level)
    possible = floor <= level and 0 < detectable <= 1
    return (
        only_a,
        only_b,
        max(difference.p_value, floor),
        None,
        detectable if possible else math.nan,
    )
