"""Which run is best, and which columns of a table of runs are worth showing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fovea.errors import FoveaError, did_you_mean, printable

SCORES = ("val/top1", "val/loss", "test/top1", "test/loss", "val/balanced_accuracy", "val/top5")
"""Shown if they are there, the more telling ones first."""

_LOW_IS_BEST = re.compile(
    r"loss|error|nll|calibration|ece$|aurc|seconds|duration|wait|memory|parameters|flops|latency"
)


@dataclass(frozen=True)
class Order:
    """By what a table is sorted.

    Attributes:
        name: of the column.
        ascending: whether the lowest comes first.
    """

    name: str
    ascending: bool

    def __str__(self) -> str:
        return f"{one_line(self.name)}, {'lowest' if self.ascending else 'highest'} first"


def best_first(
    table: pd.DataFrame, sort: str | None = None, mode: str | None = None
) -> tuple[pd.DataFrame, Order]:
    """Return ``table`` sorted, best first, and by what; runs without a value come last.

    Without ``sort``, by the metric that most of the runs monitor: its best value in each run, also
    in those that monitor another one. The column of that metric holds what was sorted by. Where
    nothing is monitored, as in evaluations, by top-1 on the split that most of them are of. Numbers
    come before text.

    Args:
        table: of `fovea.runs.load`.
        sort: a column.
        mode: "min" or "max", which of its values are best. None: as the runs that monitor it have
            it; else lowest for losses, errors, costs and text, highest for all others.

    Raises:
        FoveaError: there is no such column.
    """
    table = table.copy()
    monitored = table["monitor"].notna() & table["objective"].notna()
    if sort is None:
        names = Counter(table["monitor"][monitored])
        sort = names.most_common(1)[0][0] if names else _top1(table)
        if names:
            own = table["objective"].where(table["monitor"] == sort)
            table[sort] = own.fillna(table[sort]) if sort in table else own
    check_columns(table, [sort])
    ascending = _ascending(table, sort) if mode is None else mode == "min"
    places = _keys(table[sort]).sort_values(
        ["number", "other"], ascending=ascending, kind="stable", na_position="last"
    )
    return table.loc[places.index].reset_index(drop=True), Order(sort, ascending)


def _top1(table: pd.DataFrame) -> str:
    """Return the column of top-1 on the commonest split that has one, "id" if none has."""
    splits = Counter(table["split"].dropna()) if "split" in table else Counter()
    names = [f"{split}/top1" for split, _ in splits.most_common()]
    return next((n for n in names if n in table and table[n].notna().any()), "id")


def _keys(values: pd.Series) -> pd.DataFrame:
    """Return what to sort by: ``number``, and ``other`` where there is none; both may be missing.

    A setting may be a number in one run and text in another, which can't be compared.
    """
    if values.dtype != object:
        return pd.DataFrame({"number": 0, "other": values})
    numbers = _numbers(values)
    text = values.where(numbers.isna()).map(str, na_action="ignore")
    return pd.DataFrame({"number": numbers, "other": text})


def _numbers(values: pd.Series) -> pd.Series:
    plain = values.map(lambda value: isinstance(value, int | float))
    return pd.to_numeric(values.where(plain), errors="coerce")


def _ascending(table: pd.DataFrame, sort: str) -> bool:
    modes = Counter(table["mode"][table["monitor"] == sort].dropna())
    if modes:
        return modes.most_common(1)[0][0] == "min"
    if sort in ("time", "touched"):
        return False  # the newest
    text = not pd.api.types.is_numeric_dtype(table[sort]) and _numbers(table[sort]).isna().all()
    return text or bool(_LOW_IS_BEST.search(sort))


def worth_showing(table: pd.DataFrame, order: Order) -> list[str]:
    """Return the columns worth showing, the most telling first.

    Settings in which all agree are not; evaluations have their split, data set and checkpoint.

    Args:
        table: of `fovea.runs.load`.
        order: by what it is sorted.
    """
    scores = [name for name in SCORES if name in table and name != order.name]
    settings = _differing(table, table.attrs.get("settings", []))
    others = ["kind", "host", "hardware", "commit", "dirty"]
    # What the numbers of an evaluation are of.
    judged = ["split", "data", "ckpt"] if table["kind"].isin(["eval"]).any() else []
    wanted = [
        *("id", order.name, "state", *judged, *scores[:3], *settings),
        *("epochs", "duration", "throughput", "time"),
        *scores[3:],
        *(name for name in others if _differs(table, name)),
    ]
    return [name for name in dict.fromkeys(wanted) if name in table and table[name].notna().any()]


def _differing(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns of which runs differ, once where several say the same (``data.seed``)."""
    kept: list[str] = []
    for name in names:
        if _differs(table, name) and not any(_agree(table[name], table[one]) for one in kept):
            kept.append(name)
    return kept


def _agree(one: pd.Series, other: pd.Series) -> bool:
    """Return whether two columns have the same values, in all runs that have both."""
    both = one.notna() & other.notna()
    return bool(both.any()) and bool((one[both] == other[both]).all())


def _differs(table: pd.DataFrame, name: str) -> bool:
    return name in table and table[name].astype(str).nunique() > 1


def check_columns(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return ``names``.

    Raises:
        FoveaError: one of them is no column of ``table``; names the nearest.
    """
    for name in names:
        if name not in table:
            advice = did_you_mean(name, table.columns)
            raise FoveaError(printable(f"{name}: no such column.{advice}"))
    return list(names)


def one_line(text: str) -> str:
    """Return ``text``, such as a metric's name, in one line and without what a terminal obeys."""
    return printable(text).replace("\n", " ")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return name -> a shorter one for the head of a column, where no other is called so.

    ``optimizer.lr`` is ``lr`` then, and ``model.name`` is ``model``. Shown as `one_line` has it.
    """
    short = {}
    for name in names:
        first, dot, last = name.rpartition(".")
        short[name] = name if not dot or "/" in name else first if last == "name" else last
    taken = Counter(short.values())
    return {name: one_line(short[name] if taken[short[name]] == 1 else name) for name in names}
