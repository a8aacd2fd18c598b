"""Factors on the learning rate and weight decay of parameters by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from fovea.errors import FoveaError


class ParamScale(NamedTuple):
    """Factors of a parameter.

    Attributes:
        lr: on its learning rate, above 0.
        weight_decay: on its weight decay, where it decays at all. SGD and AdamW multiply decay by
            the rate, so 1 / ``lr`` leaves what a step takes off as it was ("decoupled").
    """

    lr: float = 1.0
    weight_decay: float = 1.0


UNSCALED = ParamScale()


def match_scales(
    names: Collection[str], rules: Sequence[Mapping[str, Any]]
) -> dict[str, ParamScale]:
    """Return the factors of each of ``names``; the first rule that matches decides.

    Args:
        names: of all parameters.
        rules: each with ``names``, a pattern of `fnmatch`, and ``lr``, ``weight_decay``.

    Raises:
        FoveaError: a rule that decides nothing, an unknown key, a factor that is none.
    """
    found: dict[str, ParamScale] = {}
    for number, rule in enumerate(rules):
        where = f"task.param_scales[{number}]"
        if set(rule) != {"names", "lr", "weight_decay"}:
            raise FoveaError(
                f"{where} has the keys {sorted(rule)}: it takes names, lr and weight_decay."
            )
        scale = ParamScale(rule["lr"], rule["weight_decay"])
        if not (scale.lr > 0 and scale.weight_decay >= 0):
            raise FoveaError(f"{where}: lr must be above 0, and weight_decay at least 0.")
        matched = [name for name in names if fnmatchcase(name, rule["names"])]
        fresh = [name for name in matched if name not in found]
        if not fresh:
            why = "matches no parameter" if not matched else "comes after rules that take them all"
            raise FoveaError(
                f"{where}: '{rule['names']}' {why}. They are called like "
                f"{next(iter(names))}; --cfg job --package task shows the rules."
            )
        found |= dict.fromkeys(fresh, scale)
    return {name: found.get(name, UNSCALED) for name in names}
