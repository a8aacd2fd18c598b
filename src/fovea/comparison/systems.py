"""Runs that differ in nothing but their seed are one system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from fovea.comparison.entries import Entry, read_settings, system_settings
from fovea.errors import FoveaError, did_you_mean, printable

_KEYS_IN_A_NAME = 3
"""Most settings that a system is named by."""
_FIRST = ("model.name", "model.weights", "optimizer.", "trainer.max_epochs", "augment.")
_LAST = ("eval.", "callbacks.", "monitor.")
"""Settings that are named first, and those named only where nothing else differs."""


@dataclass(frozen=True, eq=False)
class System:
    """One way to train, with the runs that were trained so.

    Attributes:
        letter: A, B, … in the order the runs were given.
        name: what sets it apart: its settings that differ, or its folder.
        entries: its runs, one a seed.
        columns: their numbers among all runs.
    """

    letter: str
    name: str
    entries: tuple[Entry, ...]
    columns: tuple[int, ...]

    @property
    def title(self) -> str:
        """Letter and name."""
        return f"{self.letter}: {self.name}"


def without_doubles(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return ``entries`` without those that are the same run once more, and a note for each."""
    kept: list[Entry] = []
    notes: list[str] = []
    for entry in entries:
        twin = next((other for other in kept if _same_run(entry, other)), None)
        if twin is None:
            kept.append(entry)
        else:
            notes.append(f"{entry.name} is left out: it is the same run as {twin.name}.")
    return kept, notes


def _same_run(a: Entry, b: Entry) -> bool:
    if a.file is not None and a.file == b.file:
        return True
    if a.settings != b.settings:
        return False
    same_folder = a.folder is not None and a.folder == b.folder
    return same_folder or a.results.digest == b.results.digest


def group(entries: Sequence[Entry], by: Sequence[str] | None = None) -> list[System]:
    """Return the systems that ``entries`` are runs of, in the order of their first runs.

    Args:
        entries: aligned, without doubles.
        by: as for `partition`.

    Raises:
        FoveaError: no run has such a setting.
    """
    parts = partition([e.name for e in entries], [e.settings for e in entries], by)
    return [
        System(letter(i), name, tuple(entries[c] for c in columns), tuple(columns))
        for i, (name, columns) in enumerate(parts)
    ]


def group_folders(
    folders: Sequence[str | Path], by: Sequence[str] | None = None
) -> dict[str, list[Path]]:
    """Return run folders by the name of their system: a list for each, one folder a seed.

    Args:
        folders: of training runs.
        by: as for `partition`.

    Raises:
        FoveaError: no run has such a setting.
    """
    paths = [Path(folder) for folder in folders]
    parts = partition(
        [p.name for p in paths], [system_settings(read_settings(p)) for p in paths], by
    )
    return {name: [paths[i] for i in numbers] for name, numbers in parts}


def partition(
    names: Sequence[str], settings: Sequence[Mapping[str, str]], by: Sequence[str] | None = None
) -> list[tuple[str, list[int]]]:
    """Return (name, numbers of its runs) for each system.

    Args:
        names: of the runs.
        settings: of the runs, as in `Entry`.
        by: settings such as ``optimizer.lr`` that alone tell systems apart. None: all settings but
            seeds and places; a run whose settings are not known is a system of its own. ``[]``:
            every run is one of its own.

    Raises:
        FoveaError: no run has such a setting.
    """
    known = {key: None for one in settings for key in one}
    for key in by or ():
        if key not in known:
            raise FoveaError(
                f"--group-by {key}: no run has such a setting.{did_you_mean(key, known)} "
                "What there is stands in config.yaml of a run."
            )
    groups: dict[object, list[int]] = {}
    for number, one in enumerate(settings):
        groups.setdefault(_system_key(one, number, by), []).append(number)
    firsts = [numbers[0] for numbers in groups.values()]
    titles = _titles([names[i] for i in firsts], [settings[i] for i in firsts], by)
    return list(zip(titles, groups.values(), strict=True))


def _system_key(settings: Mapping[str, str], number: int, by: Sequence[str] | None) -> object:
    if by == [] or not settings:
        return number
    return tuple((key, settings.get(key)) for key in (sorted(settings) if by is None else by))


def _titles(
    names: Sequence[str], settings: Sequence[Mapping[str, str]], by: Sequence[str] | None
) -> list[str]:
    """Return a title for each system, all different: settings that tell it apart, or its name."""
    told = [one for one in settings if one]
    known = {key: None for one in told for key in one}
    differing = [key for key in known if len({one.get(key) for one in told}) > 1]
    keys = list(by) if by else _telling(told, differing)
    more = ", …" if not by and len(differing) > len(keys) else ""
    short = _short(keys)
    said = [", ".join(f"{short[key]}{one[key]}" for key in keys if key in one) for one in settings]
    texts = [f"{text}{more}" if text else name for text, name in zip(said, names, strict=True)]
    return [
        printable(text if texts.count(text) == 1 else f"{text} ({name})").replace("\n", " ")
        for text, name in zip(texts, names, strict=True)
    ]


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Return what stands before the value of each key: ``lr=`` for ``optimizer.lr``."""
    ends = [key.rpartition(".")[2] for key in keys]
    short = {
        key: f"{end if ends.count(end) == 1 else key}=" for key, end in zip(keys, ends, strict=True)
    }
    return {**short, "model.name": ""}  # a network's name needs no word


def _telling(settings: Sequence[Mapping[str, str]], differing: Sequence[str]) -> list[str]:
    """Return a few of the ``differing`` keys that tell the systems apart, the network's first."""
    usual = [key for key in differing if key.startswith(_FIRST)]
    later = [key for key in differing if key not in usual and not key.startswith(_LAST)]
    last = [key for key in differing if key.startswith(_LAST)]
    keys: list[str] = []
    parts = 1
    for key in [*usual, *later, *last]:
        found = len({tuple(one.get(k) for k in [*keys, key]) for one in settings})
        if found > parts:
            keys, parts = [*keys, key], found
        if parts == len(settings) or len(keys) == _KEYS_IN_A_NAME:
            break
    return keys


def letter(number: int) -> str:
    """Return A to Z, then AA, AB, … as spreadsheets do."""
    text = ""
    while number >= 0:
        text = ascii_uppercase[number % 26] + text
        number = number // 26 - 1
    return text
