"""Stages of a network as groups of parameter and buffer names: pure functions on names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fovea.errors import FoveaError


def belongs(name: str, prefix: str) -> bool:
    """Return whether the parameter or buffer ``name`` lies under ``prefix``."""
    return name == prefix or name.startswith(f"{prefix}.")


def check_stages(stages: Mapping[str, Sequence[str]], names: Iterable[str], of: str) -> None:
    """Make sure that each of ``names`` belongs to exactly one stage, and each prefix to a name.

    Raises:
        FoveaError: it is not so; names the first offenders.
    """
    names = list(names)
    for name in names:
        owners = [s for s, prefixes in stages.items() if any(belongs(name, p) for p in prefixes)]
        if len(owners) != 1:
            found = f"in {len(owners)} ({', '.join(owners)})" if owners else "in none"
            raise FoveaError(
                f"Stages of backbone '{of}': '{name}' is {found}, where each parameter and buffer "
                f"must be in exactly one. Stages: {dict(stages)}."
            )
    for stage, prefixes in stages.items():
        if idle := [p for p in prefixes if not any(belongs(name, p) for name in names)]:
            raise FoveaError(
                f"Stage '{stage}' of backbone '{of}' names {idle}, under which there is no "
                "parameter or buffer."
            )


def minimal_prefixes(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return for each group the shortest dotted prefixes that hold its names and no other's.

    Args:
        groups: group -> full names, each name in one group.
    """
    group_of = {name: group for group, names in groups.items() for name in names}
    owners: dict[str, set[str]] = {}
    for name, group in group_of.items():
        for prefix in _prefixes(name):
            owners.setdefault(prefix, set()).add(group)
    result: dict[str, list[str]] = {group: [] for group in groups}
    for name, group in group_of.items():
        own = next(prefix for prefix in _prefixes(name) if owners[prefix] == {group})
        if own not in result[group]:
            result[group].append(own)
    return result


def _prefixes(name: str) -> list[str]:
    """Return "a", "a.b", "a.b.c" for "a.b.c"."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def common_prefix(names: Sequence[str]) -> str:
    """Return the longest dotted prefix, short of a whole name, that all ``names`` share."""
    shared = set(_prefixes(names[0])[:-1]).intersection(*(_prefixes(n)[:-1] for n in names))
    return max(shared, key=len, default="")


def name_groups(groups: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return ordered groups of names as stages: "stem", then each by what its names share.

    What shares nothing and stands last, such as a ViT's last block and its final norm, is split by
    top-level module, so that the block keeps its own name. "head" is left to the head: what a
    library keeps of its own head is called without it ("head.norm" is "norm").
    """
    *body, last = [list(group) for group in groups]
    split = [*body, *(_split_tail(last) if body else [last])]
    prefixes = minimal_prefixes({str(i): group for i, group in enumerate(split)})
    stages: dict[str, list[str]] = {}
    for i, group in enumerate(split):
        others = [name for j, other in enumerate(split) if j != i for name in other]
        label = _label(group, prefixes[str(i)], others) if i else "stem"
        if not label:
            label = "final" if i == len(split) - 1 else f"stage{i}"
        if label in stages:
            label = f"{label}_{i}"
        stages[label] = group
    return stages


def _label(group: list[str], prefixes: list[str], others: list[str]) -> str:
    """Return what the names of ``group`` share and ``others`` do not, "" if there is no such."""
    label = prefixes[0] if len(prefixes) == 1 else common_prefix(group)
    if label == "head":
        label = common_prefix(group)
    if label and any(belongs(name, label) for name in others):
        label = prefixes[0]
    return "" if label == "head" else label.removeprefix("head.")


def _split_tail(group: list[str]) -> list[list[str]]:
    """Return ``group`` as one, or as what its first top-level module holds and all the rest."""
    first = group[0].split(".")[0]
    inside = [name for name in group if belongs(name, first)]
    rest = [name for name in group if name not in inside]
    return [inside, rest] if rest else [group]
