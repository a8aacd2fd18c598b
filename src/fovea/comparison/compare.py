"""The comparison of several systems on the same samples, from their predictions to what holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from fovea.comparison.agreement import Agreement, measure_agreement
from fovea.comparison.entries import Entry, read_entries
from fovea.comparison.pairs import Pair, compare_pairs, outcomes
from fovea.comparison.resampling import Estimate, Resampled
from fovea.comparison.results import SCORES, judge
from fovea.comparison.same_data import align
from fovea.comparison.systems import System, group, without_doubles
from fovea.errors import FoveaError
from fovea.evaluation.intervals import wilson
from fovea.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Comparison:
    """S systems of M runs on N samples.

    Attributes:
        split: name of the split.
        entries: the M runs, aligned.
        systems: what they are runs of.
        scores: a list of S estimates for each of `SCORES`.
        pairs: all pairs of systems, or each with the baseline.
        agreement: of the M runs.
        notes: what was left out and why.
    """

    split: str
    entries: tuple[Entry, ...]
    systems: tuple[System, ...]
    scores: dict[str, list[Estimate]]
    pairs: tuple[Pair, ...]
    agreement: Agreement
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """N."""
        return len(self.entries[0].results)

    @property
    def best(self) -> int:
        """Number of the system with the highest top-1; the first among equals."""
        return int(np.argmax([estimate.value for estimate in self.scores["top1"]]))

    @property
    def run_names(self) -> list[str]:
        """M short names: the letter of the system, and a number where it has several runs."""
        names = [""] * len(self.entries)
        for system in self.systems:
            several = len(system.columns) > 1
            for number, column in enumerate(system.columns, start=1):
                names[column] = f"{system.letter}{number}" if several else system.letter
        return names

    def interval(self, system: int) -> tuple[float, float]:
        """Return the 95 % interval of a system's top-1: Wilson's for one run, else resampled.

        Within [0, 1], which a few seeds that differ much would leave.
        """
        only, *others = self.systems[system].entries
        if others:
            low, high = self.scores["top1"][system].interval
            return max(0.0, low), min(1.0, high)
        return wilson(int(only.results.correct.sum()), self.samples)


def compare(
    given: Sequence[str | Path | Predictions],
    *,
    split: str = "test",
    group_by: Sequence[str] | None = None,
    baseline: bool = False,
    seed: int = 0,
    resamples: int = 2000,
) -> Comparison:
    """Return how the systems that ``given`` are runs of compare on the same samples.

    Args:
        given: run folders, folders of evaluations, folders of several runs, files of predictions,
            or predictions themselves.
        split: whose predictions of a folder are taken.
        group_by: settings that tell systems apart, see `group`.
        baseline: compare all with the first system only: fewer claims, so each is corrected less.
        seed: of the resampling.
        resamples: how often.

    Raises:
        FoveaError: fewer than two systems, no predictions, or different test data.
    """
    entries, notes = _gather(given, split)
    systems = group(entries, group_by)
    if len(systems) < 2:
        raise FoveaError(
            f"All {len(entries)} runs have one configuration and differ in their seed only, so "
            "there is nothing to compare. To compare each run with each: --group-by none"
        )
    resampled = {
        name: Resampled(
            np.stack([entry.results.scores[name] for entry in entries], axis=1),
            [system.columns for system in systems],
            seed,
            resamples,
        )
        for name in SCORES
    }
    return _comparison(split, entries, systems, resampled, baseline, notes)


def _comparison(
    split: str,
    entries: list[Entry],
    systems: list[System],
    resampled: dict[str, Resampled],
    baseline: bool,
    notes: list[str],
) -> Comparison:
    numbers = range(len(systems))
    chosen = [(0, i) for i in numbers[1:]] if baseline else list(combinations(numbers, 2))
    return Comparison(
        split=split,
        entries=tuple(entries),
        systems=tuple(systems),
        scores={n: [r.score(i) for i in numbers] for n, r in resampled.items()},
        pairs=tuple(compare_pairs(entries, systems, chosen, resampled)),
        agreement=_agreement(entries),
        notes=tuple(notes),
    )


def _gather(given: Sequence[str | Path | Predictions], split: str) -> tuple[list[Entry], list[str]]:
    """Return what is compared, aligned and without doubles, and notes on what was left out."""
    entries: list[Entry] = []
    notes: list[str] = []
    for number, item in enumerate(given, start=1):
        if isinstance(item, Predictions):
            name = str(item.about.get("run") or f"predictions {number}")
            entries.append(Entry(name, judge(item)))
        else:
            found, left_out = read_entries([item], split)
            entries += found
            notes += left_out
    if entries:
        entries, doubles = without_doubles(align(entries))
        notes += doubles
    if len(entries) < 2:
        raise FoveaError(" ".join(["A comparison needs two runs or more.", *notes]))
    return entries, notes


def _agreement(entries: Sequence[Entry]) -> Agreement:
    predicted = np.stack([entry.results.predicted for entry in entries], axis=1)
    return measure_agreement(predicted, outcomes(entries), entries[0].results.num_classes)
