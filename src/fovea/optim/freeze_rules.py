"""Phases of a freeze schedule as they are written, and the parameters that their keys name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fovea.errors import FoveaError, did_you_mean
from fovea.optim.epochs import check_epochs, resolve_epochs

FROZEN = "frozen"
HEAD = "head"

Parts = Mapping[str, Mapping[str, int]]
"""Stage -> {full parameter name: number of values}, stem first, the head last."""

_LAST = re.compile(r"last (\d+)(%?)")


@dataclass(frozen=True)
class Phase:
    """One entry of the schedule as written; ``rules`` in order, None for frozen."""

    epoch: float | str
    rules: dict[str | int, float | None]


def read_phase(phase: object, number: int) -> Phase:
    """Return the phase that stands at ``number`` in the list, or say what is wrong with it."""
    where = f"freeze.phases[{number}]"
    if not isinstance(phase, Mapping) or set(phase) != {"epoch", "stages"}:
        got = (
            f"has the keys {sorted(map(str, phase))}" if isinstance(phase, Mapping) else "is no map"
        )
        raise FoveaError(f"{where} {got}: it takes exactly `epoch` and `stages`.")
    epoch = check_epochs(phase["epoch"], f"{where}.epoch")
    if isinstance(epoch, float) and not epoch.is_integer():
        raise FoveaError(f"{where}.epoch is {epoch!r}: phases begin at whole epochs.")
    stages = phase["stages"]
    if not isinstance(stages, Mapping) or not stages:
        raise FoveaError(
            f'{where}.stages is {stages!r}: it takes a map such as {{head: 1.0, "*": frozen}}.'
        )
    rules = {key: _read_scale(value, f"{where}.stages.{key}") for key, value in stages.items()}
    if all(scale is None for scale in rules.values()):
        raise FoveaError(f"{where}: everything is frozen, so nothing would train. Free a stage.")
    return Phase(epoch, rules)


def _read_scale(value: object, where: str) -> float | None:
    if value == FROZEN:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value > 0:
            return float(value)
        if value == 0:
            raise FoveaError(
                f"{where} is 0: write `frozen`. With a learning rate of 0 the stage would still be "
                "computed, and its BatchNorm statistics would still move."
            )
    raise FoveaError(f"{where} is {value!r}: it takes a learning-rate scale > 0, or `frozen`.")


def check_ascending(epochs: Sequence[float | str]) -> None:
    """Compare neighbours of one kind; shares and epochs are compared once the run is known."""
    for number in range(1, len(epochs)):
        before, after = epochs[number - 1], epochs[number]
        if isinstance(before, str) != isinstance(after, str):
            continue
        if resolve_epochs(after, 100) <= resolve_epochs(before, 100):
            raise FoveaError(
                f"freeze.phases[{number}].epoch is {after!r}, and the phase before begins at "
                f"{before!r}: epochs must ascend."
            )


def match_rules(
    rules: Mapping[str | int, float | None], parts: Parts, where: str
) -> dict[str, float | None]:
    """Return the scale of every parameter; the first rule that matches it decides."""
    taken: dict[str, str | int] = {}
    for key in rules:
        matched = _select(key, parts, where)
        fresh = [name for name in matched if name not in taken]
        if not fresh and key != "*":  # "*" is for the rest, and the rest may be empty
            earlier = next(taken[name] for name in matched)
            raise FoveaError(
                f"{where}.{key} decides nothing: '{earlier}' before it takes all it matches. "
                f"The first match wins, so write '{key}' first, or leave it out."
            )
        taken |= dict.fromkeys(fresh, key)
    left = [stage for stage, names in parts.items() if any(name not in taken for name in names)]
    if left:
        raise FoveaError(
            f"{where} says nothing about {', '.join(left)}. Name them, or end with "
            '`"*": frozen` or `"*": 1.0`.'
        )
    scales = {name: rules[taken[name]] for names in parts.values() for name in names}
    if all(scale is None for scale in scales.values()):
        raise FoveaError(f"{where}: every parameter is frozen, so nothing would train.")
    return scales


def _select(key: str | int, parts: Parts, where: str) -> list[str]:
    """Return the parameters that a key names."""
    stages = _stages(key, parts)
    if stages is None:
        pattern = str(key)
        stages = [stage for stage in parts if fnmatchcase(stage, pattern)]
        names = [n for group in parts.values() for n in group if fnmatchcase(n, pattern)]
    else:
        names = []
    chosen = {name: None for stage in stages for name in parts[stage]} | dict.fromkeys(names)
    if not chosen:
        what = "has no parameters" if stages else "matches no stage and no parameter"
        raise FoveaError(
            f"{where}.{key} {what}.{did_you_mean(str(key), parts)} The stages are "
            f'{", ".join(parts)}, or 0 (stem) to -1 (last before the head), "last 2", '
            '"last 50%", "*", or a pattern such as "backbone.net.*.bias".'
        )
    return list(chosen)


def _stages(key: str | int, parts: Parts) -> list[str] | None:
    """Return the stages that a key names by name, number or count; None if it is a pattern."""
    if key in parts:
        return [str(key)]
    backbone = [stage for stage in parts if stage != HEAD]
    text = str(key)
    if re.fullmatch(r"-?\d+", text):
        number = int(text)
        return [backbone[number]] if -len(backbone) <= number < len(backbone) else []
    if match := _LAST.fullmatch(text):
        count = int(match[1])
        if match[2]:  # rounded up, in integers
            count = -(-count * len(backbone) // 100)
        return backbone[-min(count, len(backbone)) :] if count else []
    return None
