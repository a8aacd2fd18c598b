"""Runs that differ only in their seed, taken together."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fovea.runs.ranking import check_columns
from fovea.runs.table import settings_of

LABELS = ("group", "tags")
"""Settings that only name runs."""


def group(
    table: pd.DataFrame,
    by: str | Sequence[str] | None = None,
    over: str | Sequence[str] = "seed",
    states: Sequence[str] = ("finished",),
) -> pd.DataFrame:
    """Return a row a group of runs: what they share, ``n``, and mean and std of each metric.

    Columns: those of ``by``; ``n`` runs; ``runs``, the list of their ids; then
    ``val/top1 mean`` and ``val/top1 std`` (n - 1 in the denominator; NaN of one run) for the
    objective and each metric by name. A missing value of a metric is left out of its mean.

    Args:
        table: of `fovea.runs.load`, or a part of it.
        by: the columns that groups share; None: every differing setting but ``over``, those of the
            same name (``data.seed``) and labels (`LABELS`).
        over: the setting or settings in which the runs of a group may differ.
        states: of the runs that count; those that were cut short would spoil a mean.

    Raises:
        FoveaError: a column does not exist, or the table does not know which are settings.
    """
    names = [over] if isinstance(over, str) else list(over)
    keys = _default(table, names) if by is None else [by] if isinstance(by, str) else list(by)
    check_columns(table, [*keys, *([] if by is None else names)])
    counted = table[table["state"].isin(states)]
    numbers = [name for name in counted if pd.api.types.is_numeric_dtype(counted[name])]
    metrics = [n for n in numbers if (n == "objective" or "/" in n) and n not in keys]
    # One group of all runs where no setting differs.
    grouped = counted.groupby(keys or (lambda _: 0), dropna=False, sort=False)
    columns = {"n": grouped.size(), "runs": grouped["id"].agg(list)}
    for name in metrics:
        columns[f"{name} mean"] = grouped[name].mean()
        columns[f"{name} std"] = grouped[name].std()
    return pd.DataFrame(columns).reset_index(drop=not keys)


def _default(table: pd.DataFrame, over: Sequence[str]) -> list[str]:
    """Return the settings that differ within ``table``, without ``over`` and what follows it."""
    ends = {name.rpartition(".")[2] for name in over}
    return [
        key
        for key in settings_of(table)
        if key.rpartition(".")[2] not in ends
        and key not in LABELS
        and table[key].astype(str).nunique() > 1
    ]
