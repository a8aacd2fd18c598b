"""One setting that a sweep varies, read from the words of Hydra's own sweeps.

These are ``interval(a,b)``, ``tag(log,interval(a,b))``, ``int(interval(a,b))``,
``range(a,b,step)`` and ``choice(x,y)``; in YAML a list is a choice as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from fovea.errors import FoveaError

Conditions = Mapping[str, tuple[str, ...]]
"""{key: the values that fulfil it}."""


@dataclass(frozen=True)
class Parameter:
    """One setting of a space.

    Attributes:
        key: of the configuration.
        name: in the study: the key, and the condition if there is one. The same key may thus have
            another range under another condition, which a study takes for another parameter.
        choices: as they are typed; empty for a range of numbers.
        low: smallest value.
        high: largest value, included.
        step: between neighbouring values; None for any value.
        log: whether values are uniform in their logarithm.
        whole: whether values are whole numbers.
    """

    key: str
    name: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    whole: bool = False

    def write(self, value: float | str) -> str:
        """Return ``value`` as it is typed."""
        if isinstance(value, str):
            return value
        return str(int(value)) if self.whole else repr(float(value))


def key_of(override: Override) -> str:
    """Return the key that an override sets, without + and ~."""
    return str(override.get_key_element()).lstrip("+~")


def parse(words: list[str]) -> list[Override]:
    """Return ``words`` read in Hydra's grammar.

    Raises:
        FoveaError: they are not in it.
    """
    try:
        return OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise FoveaError(str(error)) from None


def text_of(value: Any) -> str:
    """Return a plain value as it is typed: null, true, [1,2], 0.1, word."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if OmegaConf.is_list(value) or isinstance(value, list):
        return "[" + ",".join(text_of(item) for item in value) + "]"
    return str(value)


def from_yaml(key: str, what: Any, conditions: Conditions) -> Parameter:
    """Return the parameter that an entry of a space describes: a list, or words of a sweep.

    Args:
        key: of the configuration.
        what: to choose from.
        conditions: under which it exists.

    Raises:
        FoveaError: nothing that can be chosen from.
    """
    if isinstance(what, list):
        name = _name(key, conditions)
        return Parameter(key, name, choices=tuple(text_of(item) for item in what))
    return from_override(key, parse([f"{key}={what}"])[0], conditions)


def _name(key: str, conditions: Conditions) -> str:
    where = " ".join(f"{k}={','.join(values)}" for k, values in conditions.items())
    return f"{key} [{where}]" if where else key


def from_override(key: str, override: Override, conditions: Conditions) -> Parameter:
    """Return the parameter that a sweep in Hydra's grammar describes.

    Args:
        key: of the configuration.
        override: ``key=interval(0,1)`` and the like.
        conditions: under which it exists.

    Raises:
        FoveaError: no sweep, or an empty range.
    """
    name, value = _name(key, conditions), override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        low, high, step = value.start, value.end, None
    elif isinstance(value, RangeSweep):
        numbers = [float(number) for number in override.sweep_iterator()]  # type: ignore[arg-type]
        if not numbers or value.step <= 0:
            raise FoveaError(f"{override.input_line}: an empty range, or one that runs backwards.")
        low, step = numbers[0], float(value.step)
        high = low + step * (len(numbers) - 1)
    elif override.is_discrete_sweep():
        return Parameter(key, name, choices=tuple(override.sweep_string_iterator()))
    else:
        raise FoveaError(
            f"sweep.space.{key}={override.get_value_element_as_str()}: expected interval(a,b), "
            "tag(log,interval(a,b)), int(interval(a,b)), range(a,b,step) or a list. "
            "A value that all trials share stands under sweep.fixed."
        )
    whole = float(low).is_integer() and all(isinstance(n, int) for n in _ends(value))
    log = "log" in value.tags
    if low > high or (log and low <= 0):
        raise FoveaError(
            f"sweep.space.{key}: from {low} to {high}: the smaller number first"
            f"{', and above 0 for log' if log else ''}."
        )
    return Parameter(key, name, (), low, high, None if log else step, log, whole)


def _ends(value: IntervalSweep | RangeSweep) -> list[Any]:
    if isinstance(value, RangeSweep):
        return [value.start, value.stop, value.step]
    return [value.start, value.end]
