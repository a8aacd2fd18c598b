"""The uncertainty of scores and of their differences, by resampling seeds and samples.

A score measured on n samples by the runs of a few seeds would have come out otherwise with other
samples and with other seeds. Both are drawn anew here: the same samples for all systems, so that
what is hard for all of them cancels in their differences; seeds for each system by itself. A single
run that is compared with several of another system is taken to vary with its seed as theirs do: it
would else be a score without luck, and every lucky run a better system.

Sources: Bouthillier et al. 2021, "Accounting for Variance in Machine Learning Benchmarks" (why both
belong to it); Davison and Hinkley 1997, "Bootstrap Methods and Their Application", sec. 3.8
(hierarchical data: the variation between groups has to be shrunk by what it owes to the samples);
Rao and Wu 1988, "Resampling Inference with Complex Survey Data" (one fewer is drawn than there are,
or a few seeds would seem to vary less than they do).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fovea.comparison.significance import LEVEL

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of two, with how far off it may be.

    Attributes:
        value: as measured.
        error: its standard error.
        freedom: degrees of freedom of that error; small where few seeds decide it.
    """

    value: float
    error: float
    freedom: float

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval."""
        return self.error * float(stats.t.isf(LEVEL / 2, self.freedom))

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, from both sides."""
        return self.value - self.margin, self.value + self.margin

    @property
    def p_value(self) -> float:
        """Two-sided, of the value being 0; 1 where nothing varies at all and the value is 0."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))


class Resampled:
    """One score of S systems, measured and resampled.

    Args:
        scores: (N, M) of each sample by each run; a run's score is the mean of its column.
        groups: for each system its columns, one a seed.
        seed: of the draws.
        resamples: R.
    """

    def __init__(
        self,
        scores: Floats,
        groups: Sequence[Sequence[int]],
        seed: int = 0,
        resamples: int = 2000,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.samples = len(scores)
        by_system = np.stack([scores[:, list(group)].mean(axis=1) for group in groups], axis=1)
        self.values = by_system.mean(axis=0)
        self._draws = _draw_samples(by_system, resamples, rng)
        self._seed_variances, self._degrees = np.zeros(len(groups)), np.zeros(len(groups))
        self._one_more = np.zeros_like(self._draws)  # by how much one more run would be off
        for i, group in enumerate(groups):
            if len(group) > 1:
                columns = scores[:, list(group)]
                self._seed_variances[i] = columns.mean(axis=0).var(ddof=1) / len(group)
                self._degrees[i] = len(group) - 1
                self._draws[:, i] += _draw_seeds(columns, resamples, rng)
                means = _draw_seeds(columns, resamples, rng)
                self._one_more[:, i] = math.sqrt(len(group)) * means

    def score(self, system: int) -> Estimate:
        """Return the score of one system."""
        return self._estimate(self.values[system], self._draws[:, system], [system])

    def difference(self, first: int, second: int) -> Estimate:
        """Return by how much the score of ``second`` is above that of ``first``.

        Where only one of the two has several runs, n of variance s^2 by seed, the seeds' part is
        s^2 (1 + 1/n): the single run's seed counts as one of theirs. There are n - 1 degrees of
        freedom, whatever the samples' part: with Hillis' more, 2 runs against 1 would make false
        claims 14 % of the time.
        """
        value = self.values[second] - self.values[first]
        draws = self._draws[:, second] - self._draws[:, first]
        several = [i for i in (first, second) if self._degrees[i] > 0]
        if len(several) == 1:
            error = float((draws + self._one_more[:, several[0]]).std(ddof=1))
            return Estimate(float(value), error, float(self._degrees[several[0]]))
        return self._estimate(value, draws, several)

    def _estimate(self, value: float, draws: Floats, systems: list[int]) -> Estimate:
        """Return ``value`` with the spread of its ``draws``, which the ``systems`` make vary.

        The degrees of freedom are those of Hillis 2007, "A comparison of denominator degrees of
        freedom methods for multiple observer ROC analysis" (Welch and Satterthwaite's, with the
        seeds in the readers' place): they are infinite where the samples alone decide.
        """
        variance = float(draws.var(ddof=1))
        several = [i for i in systems if self._degrees[i] > 0]
        uncertain = sum(self._seed_variances[i] ** 2 / self._degrees[i] for i in several)
        freedom = float(variance**2 / uncertain) if uncertain else math.inf
        least = min((self._degrees[i] for i in several), default=1)
        most = max(1, self.samples - 1)
        return Estimate(float(value), math.sqrt(variance), float(np.clip(freedom, least, most)))


def _draw_samples(by_system: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Return (R, S) means over as many samples as there are, drawn with replacement."""
    n = len(by_system)
    draws = np.empty((resamples, by_system.shape[1]))
    for row in draws:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n) @ by_system / n
    return draws


def _draw_seeds(columns: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Return (R,) deviations of a system's score by other seeds than its n, from (N, n) scores.

    The n runs also differ because each has its own luck with each sample. That share of their
    variance comes with the samples that are drawn, and is taken off here.
    """
    n_samples, n = columns.shape
    means = columns.mean(axis=0)
    variance = means.var(ddof=1)
    residuals = columns - columns.mean(axis=1, keepdims=True) - (means - means.mean())
    luck = (residuals**2).sum() / ((n - 1) * max(1, n_samples - 1)) / n_samples
    kept = math.sqrt(max(0.0, 1 - luck / variance)) if variance > 0 else 0.0
    chosen = rng.integers(n, size=(resamples, n - 1))
    return kept * (means - means.mean())[chosen].mean(axis=1)
