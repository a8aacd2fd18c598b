"""What a check of ``doctor.py`` comes to: a level, a sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        level: ``problem`` if something will not work, ``note`` for what one should know.
        text: what was found.
        todo: what to do or type; empty if nothing is to be done.
    """

    level: Level
    text: str
    todo: str = ""


@dataclass(frozen=True)
class Options:
    """What the checks are told.

    Attributes:
        data: a folder of images or a table, as for ``data.root``; None: none was given.
        outputs: where runs will write.
        quick: leave out what takes long.
    """

    data: Path | None = None
    outputs: Path = field(default_factory=lambda: Path("outputs"))
    quick: bool = False


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table.

    Attributes:
        run: does it, in a process of its own, and may raise.
        timeout_s: after which that process is ended.
        in_quick: whether ``--quick`` keeps it.
        alone: whether it measures something, so that nothing else may run meanwhile.
    """

    run: Callable[[Options], Finding]
    timeout_s: float = 20.0
    in_quick: bool = True
    alone: bool = False


def ok(text: str) -> Finding:
    """Return that all is well."""
    return Finding("ok", text)


def note(text: str, todo: str = "") -> Finding:
    """Return what one should know."""
    return Finding("note", text, todo)


def problem(text: str, todo: str) -> Finding:
    """Return what will not work, and what to do about it."""
    return Finding("problem", text, todo)


def first_line(error: BaseException) -> str:
    """Return the first line of what ``error`` says, with its kind."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
