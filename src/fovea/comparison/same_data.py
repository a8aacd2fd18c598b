"""Only predictions on the same samples are compared: brought into one order here, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fovea.comparison.entries import Entry
from fovea.comparison.results import Results
from fovea.errors import FoveaError, printable


def align(entries: Sequence[Entry]) -> list[Entry]:
    """Return ``entries`` with samples and classes in the order of the first one.

    Samples are the same where the fingerprints of the splits are, or, where one of two has no
    fingerprint, all paths; classes are matched by their names.

    Raises:
        FoveaError: other samples, other classes, or another label for one of the samples.
    """
    first = entries[0]
    return [first, *(_aligned(first, other) for other in entries[1:])]


def _aligned(first: Entry, other: Entry) -> Entry:
    a, b = first.results, _with_classes_of(first, other)
    order = _order_of_samples(first, other)
    aligned = replace(
        b,
        indices=a.indices,
        labels=b.labels[order],
        predicted=b.predicted[order],
        correct=b.correct[order],
        confidence=b.confidence[order],
        scores={name: values[order] for name, values in b.scores.items()},
        paths=a.paths,
    )
    differing = int((aligned.labels != a.labels).sum())
    if differing:
        raise _refused(first, other, f"{differing:,} of {len(a):,} samples have another label")
    return replace(other, results=aligned)


def _with_classes_of(first: Entry, other: Entry) -> Results:
    """Return the results of ``other`` with its classes numbered as ``first`` does."""
    a, b = first.results, other.results
    if a.num_classes != b.num_classes:
        raise _refused(first, other, f"{a.num_classes} classes there, {b.num_classes} here")
    if not a.class_names or not b.class_names or a.class_names == b.class_names:
        return b
    strange = [name for name in b.class_names if name not in set(a.class_names)]
    if strange:
        raise _refused(first, other, f"it has other classes, such as '{strange[0]}'")
    numbers = {name: number for number, name in enumerate(a.class_names)}
    here = np.array([numbers[name] for name in b.class_names])
    return replace(b, labels=here[b.labels], predicted=here[b.predicted], class_names=a.class_names)


def _order_of_samples(first: Entry, other: Entry) -> NDArray[np.int64]:
    """Return (N,) int64: which row of ``other`` is the sample in each row of ``first``."""
    a, b = first.results, other.results
    prints = [p.about.get("fingerprint") for p in (a, b)]
    if all(prints) and prints[0] == prints[1]:
        keys_a, keys_b = a.indices.tolist(), b.indices.tolist()
    elif all(prints) and not (a.paths and sorted(a.paths) == sorted(b.paths)):
        raise _refused(first, other, _how_splits_differ(a, b))
    elif a.paths and b.paths:
        keys_a, keys_b = list(a.paths), list(b.paths)
    else:
        raise FoveaError(
            f"'{_name(other)}' or '{_name(first)}' does not say which images it is of: its "
            "predictions were saved by an older version. Make them anew: "
            "python src/eval.py ckpt=<run folder> split=<split>"
        )
    rows = {key: row for row, key in enumerate(keys_b)}
    missing = sum(key not in rows for key in keys_a)
    if missing or len(keys_a) != len(keys_b):
        raise _refused(
            first,
            other,
            f"{len(keys_a):,} samples there, {len(keys_b):,} here, {len(keys_a) - missing:,} of "
            "them the same",
        )
    return np.array([rows[key] for key in keys_a], dtype=np.int64)


def _how_splits_differ(a: Results, b: Results) -> str:
    texts = [
        f"{len(p):,} samples of '{p.about.get('split', '?')}' of {p.about.get('data', '?')}"
        for p in (a, b)
    ]
    if texts[0] == texts[1]:
        return f"both are of {texts[0]}, but not of the same images"
    return f"{texts[0]} there, {texts[1]} here"


def _refused(first: Entry, other: Entry, reason: str) -> FoveaError:
    return FoveaError(
        f"'{_name(other)}' can't be compared with '{_name(first)}', which was judged on other "
        f"data: {reason}.\n  Evaluate both on the same split: "
        "python src/eval.py ckpt=<run folder> split=test data=<data set>"
    )


def _name(entry: Entry) -> str:
    return printable(entry.name)
