"""What a sweep may choose from: a space of settings, some of which exist only under a condition.

A space is written alike in ``conf/sweep/*.yaml`` and on the command line: see
`fovea.sweeps.parameters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fovea.errors import FoveaError, did_you_mean
from fovea.sweeps.parameters import (
    Conditions,
    Parameter,
    from_override,
    from_yaml,
    key_of,
    parse,
    text_of,
)


@dataclass
class Block:
    """Settings that exist where all ``conditions`` hold: {key: values that fulfil it}."""

    conditions: Conditions = field(default_factory=dict)
    parameters: list[Parameter] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def walk(self) -> Iterator[Block]:
        """Yield this block and those inside, outer ones first."""
        yield self
        for block in self.blocks:
            yield from block.walk()


Choose = Callable[[Parameter], str]
"""How a value, as typed, is chosen for a parameter."""


class Space:
    """The settings that the trials of a sweep choose from, and those that all of them share.

    Args:
        tree: ``space`` of a choice of ``conf/sweep``: {key: what to choose from}, and under
            ``when`` {"key=value": a tree of settings that exist only there}.
        fixed: {key: value} that all trials have, unless the command line says otherwise.
        words: overrides of the command line. What they set is no longer varied; sweeps in them
            (``optimizer.lr=interval(0.001,0.1)``) are varied, in place of what the space says.

    Attributes:
        root: the settings.
        shared: overrides that all trials have.
        given: {key: value as typed} of those.

    Raises:
        FoveaError: not a space.
    """

    def __init__(self, tree: Mapping[str, Any], fixed: Mapping[str, Any], words: list[str]) -> None:
        overrides = [o for o in parse(words) if not _of_study(key_of(o))]
        typed = {key_of(override) for override in overrides}
        self.root = _block(tree, {}, typed)
        swept = [o for o in overrides if o.is_sweep_override()]
        self.root.parameters += [from_override(key_of(o), o, {}) for o in swept]
        self.shared = [f"{k}={text_of(v)}" for k, v in fixed.items() if k not in typed]
        self.shared += [str(o.input_line) for o in overrides if o not in swept]
        self.given = {key_of(o): o.get_value_element_as_str() for o in parse(self.shared)}
        if not any(block.parameters for block in self.root.walk()):
            raise FoveaError(
                "This sweep varies nothing. Say what to vary, for instance: "
                "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
            )
        self._check_conditions()

    @property
    def parameters(self) -> list[Parameter]:
        """All settings, those under conditions included."""
        return [parameter for block in self.root.walk() for parameter in block.parameters]

    def sample(
        self, choose: Choose, default: Callable[[str], str | None] = lambda key: None
    ) -> dict[str, str]:
        """Return {key: value as typed} of one trial.

        Args:
            choose: called for each parameter whose conditions hold, in order.
            default: the value of a key that is neither varied nor given.
        """
        values: dict[str, str] = {}

        def enter(block: Block) -> None:
            for key, wanted in block.conditions.items():
                value = values.get(key, self.given.get(key))
                if (default(key) if value is None else value) not in wanted:
                    return
            for parameter in block.parameters:
                values[parameter.key] = choose(parameter)
            for inner in block.blocks:
                enter(inner)

        enter(self.root)
        return values

    def examples(self) -> Iterator[list[str]]:
        """Yield overrides of trials that together use every key, choice and end of a range."""
        innermost = [block for block in self.root.walk() if not block.blocks]
        for n, block in enumerate(innermost):
            forced = {key: values[0] for key, values in block.conditions.items()}
            # What stands further out is the same in all of them: its choices are tried once.
            tried = self.parameters if n == 0 else block.parameters
            for i in range(max([2, *(len(parameter.choices) for parameter in tried)])):

                def choose(p: Parameter, i: int = i, forced: dict[str, str] = forced) -> str:
                    if p.key in forced:
                        return forced[p.key]
                    if p.choices:
                        return p.choices[i % len(p.choices)]
                    return p.write(p.high if i % 2 else p.low)

                sampled = self.sample(choose, forced.get)
                outside = {k: v for k, v in forced.items() if k not in {*sampled, *self.given}}
                yield [*self.shared, *(f"{k}={v}" for k, v in {**outside, **sampled}.items())]

    def _check_conditions(self) -> None:
        choices: dict[str, set[str]] = {}
        for parameter in self.parameters:
            choices.setdefault(parameter.key, set()).update(parameter.choices)
        for block in self.root.walk():
            for key, wanted in block.conditions.items():
                for value in wanted:
                    if choices.get(key) and value not in choices[key]:
                        raise FoveaError(
                            f"when {key}={value}: the sweep never chooses it."
                            f"{did_you_mean(value, choices[key])}\n"
                            f"  {key} is one of: {', '.join(sorted(choices[key]))}"
                        )


def _of_study(key: str) -> bool:
    # Its trials go on (resume=auto) by themselves.
    return key in {"sweep", "resume"} or key.startswith("sweep.")


def _block(tree: Mapping[str, Any], conditions: Conditions, typed: set[str]) -> Block:
    block = Block(conditions)
    for key, what in tree.items():
        if key == "when":
            continue
        if key not in typed:
            block.parameters.append(from_yaml(str(key), what, conditions))
    for condition, inner in (tree.get("when") or {}).items():
        key, equals, values = str(condition).partition("=")
        if not equals or not isinstance(inner, Mapping):
            raise FoveaError(
                f"sweep.space.when: '{condition}' is no condition. Write it as "
                "'key=value: {setting: what to choose from}'; several values: key=a,b"
            )
        block.blocks.append(
            _block(inner, {**conditions, key: tuple(v.strip() for v in values.split(","))}, typed)
        )
    return block
