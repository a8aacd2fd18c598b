"""A comparison as tables: a row a system, a pair, two runs, or a sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from fovea.comparison.compare import Comparison
from fovea.comparison.pareto import read_costs
from fovea.comparison.results import SCORES
from fovea.comparison.verdict import say_pair
from fovea.pages.tables import Table, page_table


def systems_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row a system, in the order they were given.

    Columns: ``system`` (letter), ``name``, ``runs``; ``top1`` (mean over its runs) with ``low`` and
    ``high``, 95 %; ``sd`` over its runs (n - 1), NaN for one; ``balanced_accuracy``, ``nll``; and
    the mean of each of `COSTS` over its runs.
    """
    rows = []
    for number, system in enumerate(comparison.systems):
        low, high = comparison.interval(number)
        tops = [entry.results.correct.mean() for entry in system.entries]
        costs = pd.DataFrame([read_costs(entry) for entry in system.entries])
        rows.append(
            {
                "system": system.letter,
                "name": system.name,
                "runs": len(system.entries),
                "top1": comparison.scores["top1"][number].value,
                "low": low,
                "high": high,
                "sd": float(np.std(tops, ddof=1)) if len(tops) > 1 else math.nan,
                "balanced_accuracy": comparison.scores["balanced_accuracy"][number].value,
                "nll": comparison.scores["nll"][number].value,
                **costs.mean().to_dict(),
            }
        )
    return pd.DataFrame(rows)


def pairs_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row a pair: ``second`` less ``first``.

    Columns: ``first``, ``second`` (letters), ``claim``; for each of `SCORES` the difference with
    ``_low`` and ``_high``, 95 %, not corrected for the number of pairs; ``p``, ``p_holm``,
    ``p_exact`` (see `Pair`), ``detectable``; ``only_first`` and ``only_second``, how many samples
    only one of the two has right. Accuracies and their differences are shares.
    """
    letters = [system.letter for system in comparison.systems]
    rows = []
    for pair in comparison.pairs:
        better = pair.second if pair.differences["top1"].value > 0 else pair.first
        row: dict[str, Any] = {
            "first": letters[pair.first],
            "second": letters[pair.second],
            "claim": f"{letters[better]} is better" if pair.shown else "not shown",
        }
        for name in SCORES:
            low, high = pair.interval(name)
            row |= {name: pair.differences[name].value, f"{name}_low": low, f"{name}_high": high}
        row |= {
            "p": pair.p_value,
            "p_holm": pair.adjusted_p,
            "p_exact": pair.exact_p,
            "detectable": pair.detectable,
            "only_first": pair.only_first,
            "only_second": pair.only_second,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def agreement_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row for two runs: ``first``, ``second``, and the fields of `Agreement`."""
    agreement, names = comparison.agreement, comparison.run_names
    rows, columns = np.triu_indices(len(names), k=1)
    return pd.DataFrame(
        {
            "first": [names[i] for i in rows],
            "second": [names[i] for i in columns],
            "equal": agreement.equal[rows, columns],
            "kappa": agreement.kappa[rows, columns],
            "error_consistency": agreement.error_consistency[rows, columns],
        }
    )


def disagreements_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row a sample that some runs have right and others wrong.

    Columns: ``path`` (or the index), ``label``, ``right`` (how many runs), and what each run says.
    """
    first = comparison.entries[0].results
    correct = np.stack([entry.results.correct for entry in comparison.entries], axis=1)
    right = correct.sum(axis=1)
    rows = np.flatnonzero((right > 0) & (right < correct.shape[1]))
    samples = first.paths or [str(index) for index in first.indices]
    says = {
        name: [first.names[guess] for guess in entry.results.predicted[rows]]
        for name, entry in zip(comparison.run_names, comparison.entries, strict=True)
    }
    return pd.DataFrame(
        {
            "path": [samples[row] for row in rows],
            "label": [first.names[label] for label in first.labels[rows]],
            "right": right[rows],
            **says,
        }
    )


def runs_table(comparison: Comparison) -> pd.DataFrame:
    """Return a row a run: ``run`` (short name), ``name``, ``seed``, ``top1``, ``folder``."""
    return pd.DataFrame(
        {
            "run": comparison.run_names,
            "name": [entry.name for entry in comparison.entries],
            "seed": [entry.seed for entry in comparison.entries],
            "top1": [float(entry.results.correct.mean()) for entry in comparison.entries],
            "folder": [str(entry.folder or entry.file or "") for entry in comparison.entries],
        }
    )


def pairs_for_reading(comparison: Comparison) -> Table:
    """Return the pairs with differences in points, and their margins beside them."""
    rows = []
    letters = [system.letter for system in comparison.systems]
    for pair in comparison.pairs:
        top, balanced = pair.differences["top1"], pair.differences["balanced_accuracy"]
        nll = pair.differences["nll"]
        rows.append(
            {
                "pair": f"{letters[pair.second]} − {letters[pair.first]}",
                "claim": say_pair(comparison, pair).partition(": ")[2].partition(" (")[0],
                "top-1, points": 100 * top.value,
                "±": 100 * top.margin,
                "p": pair.p_value,
                "p (Holm)": pair.adjusted_p,
                "p (exact)": pair.exact_p,
                "detectable": 100 * pair.detectable,
                "only first right": pair.only_first,
                "only second right": pair.only_second,
                "balanced, points": 100 * balanced.value,
                "± ": 100 * balanced.margin,
                "NLL": nll.value,
                "±  ": nll.margin,
            }
        )
    formats = {
        **dict.fromkeys(("top-1, points", "balanced, points"), "+.2f"),
        **dict.fromkeys(("±", "± ", "detectable"), ".2f"),
        **dict.fromkeys(("only first right", "only second right"), ".4g"),
        **dict.fromkeys(("p", "p (Holm)", "p (exact)"), ".2g"),
        "NLL": "+.4f",
        "±  ": ".4f",
    }
    return page_table(pd.DataFrame(rows).dropna(axis="columns", how="all"), formats)
