"""What may be claimed of a comparison, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fovea.comparison.compare import Comparison
from fovea.comparison.pairs import Pair
from fovea.comparison.resampling import Estimate
from fovea.comparison.systems import System

METHOD = (
    "One run each: McNemar's test on the samples that only one of the two has right, two-sided "
    "mid-p value (Fagerland, Lydersen and Laake 2013). It keeps to its level at all counts, so no "
    "chi-squared approximation is used; the exact p-value stands beside it.",
    "Several seeds: seeds and samples are both resampled (Bouthillier et al. 2021; Davison and "
    "Hinkley 1997, sec. 3.8), the samples alike for all systems; a t-test with the degrees of "
    "freedom that the number of seeds leaves (Hillis 2007).",
    "One run against several seeds: its seed is taken to make as much difference as theirs does. "
    "Seeds then add s² (1 + 1/n) to the variance, with n − 1 degrees of freedom; s² is the "
    "variance of the n runs.",
    "±: half of a 95 % interval, from the same resampling (paired bootstrap), not corrected for "
    "the number of comparisons.",
    "Several comparisons: p-values corrected by Holm 1979, so that the chance of any false claim "
    "is at most 5 %.",
    "Detectable, or what could have been shown: the difference that would have led to a "
    "claim with a chance of 80 %, at the share of disagreement that was seen (Miettinen 1968; "
    "Connor 1987) or the standard error over seeds, at the level of a single claim.",
    "Agreement: Cohen 1960; error consistency: Geirhos et al. 2020.",
)
"""How the numbers were found, with the sources."""

_MORE_SEEDS = "Other seeds would tell: python src/train.py -m seed=0,1,2 …"

_PRECISE_FROM = 2000
"""Samples from which a hundredth of a point means something."""


def say_pair(comparison: Comparison, pair: Pair) -> str:
    """Return a sentence: difference in top-1 with its 95 % margin, and whether it may be claimed.

    In percentage points, such as ``B − A = +0.4 ± 0.6 points: not shown (p = 0.21); this test set
    could have shown 0.9``.
    """
    first, second = (comparison.systems[i].letter for i in (pair.first, pair.second))
    difference = pair.differences["top1"]
    head = f"{second} − {first} = {say_points(difference, comparison.samples)}: "
    p_value = say_p(pair, len(comparison.pairs))
    if pair.shown:
        better = second if difference.value > 0 else first
        return f"{head}{better} is better ({p_value})"
    differing = pair.only_first + pair.only_second
    if differing == 0:
        return f"{head}not shown; they are right and wrong on the same samples"
    if math.isnan(pair.detectable) and difference.freedom < comparison.samples - 1:
        return f"{head}not shown ({p_value}); too few seeds for how much they differ"
    if math.isnan(pair.detectable):
        return (
            f"{head}not shown ({p_value}); they differ on {differing:.3g} of "
            f"{comparison.samples:,} samples, too few for any claim"
        )
    detectable = f"{100 * pair.detectable:.{digits(comparison.samples)}f}"
    source = f"this {comparison.split} set"
    if pair.exact_p is None:
        source = f"these seeds and {source}"
    return f"{head}not shown ({p_value}); {source} could have shown {detectable}"


def say_points(difference: Estimate, samples: int) -> str:
    """Return ``+0.4 ± 0.6 points`` for a difference of shares."""
    n = digits(samples)
    value, margin = f"{100 * difference.value:+.{n}f}", f"{100 * difference.margin:.{n}f}"
    return f"{value.replace('-', '−')} ± {margin} points"


def say_p(pair: Pair, comparisons: int) -> str:
    """Return ``p = 0.03``, with what it becomes after the correction for several comparisons."""
    text = _p(pair.p_value)
    if comparisons > 1:
        text += f"; {_p(pair.adjusted_p)} corrected for {comparisons} comparisons"
    return text


def _p(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"


def digits(samples: int) -> int:
    """Return how many decimals of a percentage point are worth showing."""
    return 2 if samples >= _PRECISE_FROM else 1


def say_all(comparison: Comparison) -> list[str]:
    """Return what may be claimed, the shortest true account first."""
    best = [say_best(comparison)] if len(comparison.systems) > 2 else []
    return best + [say_pair(comparison, pair) for pair in in_order(comparison)]


def in_order(comparison: Comparison) -> list[Pair]:
    """Return the pairs, of three systems or more those with the best one first."""
    if len(comparison.systems) == 2:
        return list(comparison.pairs)
    return sorted(
        comparison.pairs, key=lambda pair: comparison.best not in (pair.first, pair.second)
    )


def say_best(comparison: Comparison) -> str:
    """Return which system is the best, and over which others that is shown."""
    best = comparison.best
    beaten: list[str] = []
    open_: list[str] = []
    for pair in comparison.pairs:
        if best in (pair.first, pair.second):
            other = pair.first if pair.second == best else pair.second
            wins = (pair.differences["top1"].value > 0) == (pair.second == best)
            (beaten if pair.shown and wins else open_).append(comparison.systems[other].letter)
    score = f"{100 * comparison.scores['top1'][best].value:.{digits(comparison.samples)}f} %"
    text = f"Best: {comparison.systems[best].letter} ({score})."
    if beaten:
        text += f" Shown to be better than {', '.join(beaten)}."
    if open_:
        text += f" Not shown to be better than {', '.join(open_)}."
    return text


def say_limits(comparison: Comparison) -> list[str]:
    """Return what the claims do not cover."""
    single = [system for system in comparison.systems if len(system.entries) == 1]
    limits = []
    alone = f"{_letters(single)} {_are_one(single)}" if single else ""
    if any(pair.exact_p is not None for pair in comparison.pairs):
        limits.append(
            f"{alone}: what is said of single runs holds for the trained networks, not for the way "
            f"they were trained. {_MORE_SEEDS}"
        )
    if single and len(single) < len(comparison.systems):
        limits.append(
            f"{alone}: beside several runs, a single one's seed is taken to make as much "
            f"difference as theirs does. {_MORE_SEEDS}"
        )
    if len(single) < len(comparison.systems):
        limits.append(
            "Where a system has several runs, a claim is about its way of training: seeds and "
            "samples are both taken to be drawn at random."
        )
    if len(comparison.systems) > 2:
        limits.append(
            f"The best of {len(comparison.systems)} was chosen on these samples, so its own score "
            "is likely to flatter."
        )
    return limits


def _are_one(systems: Sequence[System]) -> str:
    return "is one run" if len(systems) == 1 else "are one run each"


def _letters(systems: Sequence[System]) -> str:
    letters = [system.letter for system in systems]
    return letters[0] if len(letters) == 1 else f"{', '.join(letters[:-1])} and {letters[-1]}"
