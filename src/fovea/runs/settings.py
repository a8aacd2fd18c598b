"""The settings of runs: config.yaml as a flat dictionary, read fast, and which of them to show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

Settings = dict[str, Any]

ALWAYS_SHOWN = ("seed", "model.name", "data.batch_size", "trainer.max_epochs")

MOST_VALUES = 20_000
"""Of one file. The largest recipe has some hundred; aliases of YAML can multiply a few lines to
billions of values."""

OWN = re.compile(
    r"^(run_id|resume|paths\..*|logger\..*|launcher\..*|expected(\..*)?"
    r"|callbacks\..*\.(dirpath|folder|path|metrics_csv))$"
)
"""Settings that say where a run's files go, how it was started, or what its recipe promises: they
are no part of what the run is."""

RUN = "<run>"

# Where the run was, if its folder has been moved since: ``paths.run``.
_WAS_IN = re.compile(r"^paths:\n(?: .*\n)*?  run: (['\"]?)(.*/.*)\1$", re.MULTILINE)

# Written in C: six times as fast. A build of PyYAML without it has the other one.
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Deep nesting makes the parser in C overflow its stack, which ends the process.
_DEEP = re.compile(r"^[ \t]{200}|(?:[-?][ \t]+){50}", re.MULTILINE)
_BRACKETS = 200


def parse_settings(text: str, folder: Path | None = None) -> Settings:
    """Return ``{"model.name": "resnet18"}`` for the YAML of a configuration; lists become text.

    The files of many runs are alike but for some lines. So each section (a key at the margin, with
    what stands below it) is parsed once and remembered; a file that can't be cut that way, since it
    has anchors and aliases for instance, is parsed as a whole.

    Args:
        text: the file's content.
        folder: the run's. Where its path stands, as it is or as it was in ``paths.run``, the
            settings have `RUN`: what differs in nothing else does not differ. Its name alone
            stays: it may be a network's, or the 1 of many values.

    Raises:
        yaml.YAMLError: it is no YAML, or names a Python type.
        ValueError: it is no mapping, or too large.
        RecursionError: it is nested too deeply.
    """
    if folder is not None:
        text = _without_place(text, folder)
    sections: dict[str, Settings] = {}
    try:
        for section in re.split(r"\n(?=[A-Za-z_])", text):
            sections |= _parse(section)
    except (yaml.YAMLError, ValueError):
        sections = _parse.__wrapped__(text)
    return {key: value for flat in sections.values() for key, value in flat.items()}


def _without_place(text: str, folder: Path) -> str:
    """Return ``text`` with `RUN` for the whole path of the run's folder, now and when it began."""
    was = _WAS_IN.search(text)
    for place in dict.fromkeys([str(folder.absolute()), *([was[2]] if was else [])]):
        text = re.sub(rf"(?<![\w./-]){re.escape(place)}(?=[/'\",\]}}]|$)", RUN, text, flags=re.M)
    return text


@lru_cache(maxsize=20_000)
def _parse(text: str) -> dict[str, Settings]:
    """Return the flat settings below each key at the margin."""
    tree = _load(text)
    if not isinstance(tree, dict):
        raise ValueError("it is no mapping of settings")
    budget = [MOST_VALUES]
    return {str(key): dict(_walk(str(key), value, budget)) for key, value in tree.items()}


def flatten(tree: Mapping[str, Any]) -> Settings:
    """Return ``{"model.name": "resnet18"}`` for nested values; lists become text.

    Raises:
        ValueError: it has more than `MOST_VALUES`.
    """
    budget = [MOST_VALUES]
    return {name: value for key in tree for name, value in _walk(str(key), tree[key], budget)}


@lru_cache(maxsize=20_000)
def parse_words(text: str) -> list[str]:
    """Return the list of an overrides.yaml, which the caller must not change.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError: it is no list.
    """
    value = _load(text)
    if not isinstance(value, list):
        raise ValueError("it is no list of words")
    return [str(word) for word in value]


def _load(text: str) -> Any:
    deep = text.count("[") + text.count("{") > _BRACKETS or _DEEP.search(text)
    return yaml.load(text, Loader=yaml.SafeLoader if deep else _SAFE_LOADER)


def _walk(key: str, value: Any, budget: list[int]) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of all leaves; ``budget[0]`` is how many are still allowed."""
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _walk(f"{key}.{name}", item, budget)
    elif isinstance(value, list | dict):
        for item in value:  # counted before they are written out
            for _ in _walk(key, item, budget):
                pass
        yield key, str(value)
    elif isinstance(value, str | int | float | bool | None):
        yield key, value
    else:  # a date, for instance
        yield key, str(value)


def telling(settings: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> list[str]:
    """Return the keys that are always shown or in which runs of one group differ.

    Where files go (`OWN`) is left out. A run without settings, whose file could not be read, makes
    no difference; one that lacks a single key does.

    Args:
        settings: of each run.
        groups: the kind of each run: other kinds have other keys.
    """
    first: dict[str, Settings] = {group: {} for group in groups}
    counts: dict[str, Counter[str]] = {group: Counter() for group in groups}
    differing: set[str] = set()
    for flat, group in zip(settings, groups, strict=True):
        seen = first[group]
        counts[group].update(flat.keys())
        for key, value in flat.items():
            known = seen.setdefault(key, value)
            if value is not known and str(value) != str(known):
                differing.add(key)
    runs = Counter(group for flat, group in zip(settings, groups, strict=True) if flat)
    keys = dict.fromkeys(key for seen in first.values() for key in seen)
    shown = [
        key
        for key in keys
        if key in differing or any(0 < counts[group][key] < runs[group] for group in first)
        if not OWN.match(key)
    ]
    return list(dict.fromkeys([*(key for key in ALWAYS_SHOWN if key in keys), *shown]))
