"""One run folder read into plain values, whatever is wrong with it."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from fovea.runs.metrics import Digest, digest
from fovea.runs.scores import models_of, scores_of
from fovea.runs.settings import Settings, parse_settings, parse_words
from fovea.runs.times import Said, Span, processes, seconds_of

FILES = (
    "config.yaml",
    "overrides.yaml",
    "environment.json",
    "summary.json",
    "metrics.csv",
    "train.log",
)
"""All that a row is made of."""

MARKS = ("config.yaml", "summary.json", "metrics.csv")
"""A folder with one of these is a run's."""

_LARGEST = {"config.yaml": 1 << 20, "overrides.yaml": 1 << 20}
"""Bytes; of what is parsed slowly. Both are a few thousand bytes long."""

LARGEST_INTEGER = 2**63 - 1
"""Larger ones are no count: columns of numbers, JSON and browsers can't hold them."""

Stamps = dict[str, tuple[int, int]]
Record = dict[str, Any]
"""JSON-plain: ``row`` (column -> value), ``settings`` (key -> value) and, of an evaluation of
several models, ``models``: a list of what is other than in ``row`` for each."""


def stamps_of(folder: str) -> Stamps:
    """Return (time of change in ns, size in bytes) of each file that a row is made of."""
    stamps = {}
    for name in FILES:
        try:
            found = os.stat(os.path.join(folder, name))
        except (OSError, ValueError):
            continue
        size = found.st_size if stat.S_ISREG(found.st_mode) else -1  # a pipe would be waited for
        stamps[name] = (found.st_mtime_ns, size)
    return stamps


def read_record(folder: Path, stamps: Stamps) -> Record:
    """Return what the files of ``folder`` say; never raises, ``row["error"]`` has the reasons."""
    reader = _Reader(folder, stamps)
    summary: dict[str, Any] = reader.parse("summary.json", read_mapping, {}, needed=True)
    settings: Settings = reader.parse(
        "config.yaml", lambda text: parse_settings(text, folder), {}, needed=True
    )
    environment: dict[str, Any] = reader.parse("environment.json", read_mapping, {})
    overrides: list[str] = reader.parse("overrides.yaml", parse_words, [])
    monitor = _text(settings.get("monitor.metric")) or _text(summary.get("monitor"))
    mode = _text(settings.get("monitor.mode"))
    curves: Digest | None = reader.parse(
        "metrics.csv", lambda text: digest(text, monitor, mode), None
    )
    git = environment.get("git")
    commit = git if isinstance(git, Mapping) else {}
    facts = {
        "kind": _kind(settings, summary),
        "data": _data(settings),
        **_times(reader, summary, environment),
        "host": _text(environment.get("host")),
        "hardware": _hardware(environment),
        "commit": _text(commit.get("commit")),
        "dirty": commit.get("dirty") if isinstance(commit.get("dirty"), bool) else None,
        "overrides": " ".join(overrides) if "overrides.yaml" in stamps else None,
        "monitor": monitor,
        "mode": mode,
    }
    plain = {k: v for k, v in summary.items() if not isinstance(v, dict | list)}
    said = plain.pop("state", None)
    reason = plain.pop("error", None)
    scores = scores_of(curves, summary)
    row = reader.bounded({**scores, **plain, **facts, **_progress(curves, plain)})
    settings = reader.bounded(settings)
    models = [reader.bounded(model) for model in models_of(summary)]
    row |= {"state": _text(said), "error": "; ".join(reader.errors) or _text(reason)}
    return {"row": row, "settings": settings, "models": models}


class _Reader:
    """Reads files of one folder and keeps the reasons why some can't be read."""

    def __init__(self, folder: Path, stamps: Stamps) -> None:
        self.folder, self.stamps = folder, stamps
        self.errors: list[str] = []

    def content(self, name: str) -> bytes:
        """Return the bytes of a regular file.

        Raises:
            OSError: there is none, or it can't be read.
            ValueError: it is too large.
        """
        size = self.stamps.get(name, (0, 0))[1]
        if size < 0:
            raise OSError("it is no file")
        if size > _LARGEST.get(name, math.inf):
            raise ValueError(f"it is too large, {size:,} bytes")
        return (self.folder / name).read_bytes()

    def parse(
        self, name: str, parser: Callable[[str], Any], default: Any, needed: bool = False
    ) -> Any:
        """Return what ``parser`` makes of a file's text, ``default`` if that fails."""
        if name not in self.stamps and not needed:
            return default
        try:
            return parser(self.content(name).decode())
        except Exception as error:  # whatever is wrong with it, the other runs are shown
            self.errors.append(f"{name}: {_reason(error)}")
            return default

    def bounded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``values`` with None for integers beyond `LARGEST_INTEGER`."""
        large = [
            name
            for name, value in values.items()
            if isinstance(value, int) and abs(value) > LARGEST_INTEGER
        ]
        self.errors.extend(f"{name} is too large a number" for name in large)
        return {**values, **dict.fromkeys(large)}


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is none"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError):
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        return f"{error.problem}{line}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_mapping(text: str) -> dict[str, Any]:
    """Return the mapping that is JSON's ``text``.

    Raises:
        ValueError: it is no JSON, or no mapping.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, no mapping")
    return value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _times(
    reader: _Reader, summary: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return ``time`` (of the start), ``touched`` (newest file), ``duration``; seconds."""
    said = Said(
        started=[_number(summary.get("started")), seconds_of(environment.get("time"))],
        seconds=_number(summary.get("seconds")),
        ended=summary.get("state") not in (None, "running"),
        resumed="resume=" in str(environment.get("command")),
    )
    spans: list[Span] = reader.parse("train.log", processes, []) if said.needs_log else []
    touched = max((time for time, _ in reader.stamps.values()), default=0) / 1e9
    return {"time": said.begin(spans), "touched": touched or None, "duration": said.total(spans)}


def _kind(settings: Settings, summary: Mapping[str, Any]) -> str | None:
    """Return "train" or "eval"; None where neither file tells."""
    if "ckpt" in summary or ("split" in settings and "monitor.metric" not in settings):
        return "eval"
    told = "monitor.metric" in settings or "trainer.max_epochs" in settings or "monitor" in summary
    return "train" if told else None


def _data(settings: Settings) -> str | None:
    """Return the class of the data set, ``"DigitsDataModule"``."""
    target = settings.get("data._target_")
    return None if target is None else str(target).rpartition(".")[2]


def _hardware(environment: Mapping[str, Any]) -> str | None:
    """Return ``"8 x NVIDIA A100"``, or the processor's name where there is no GPU."""
    gpus, cpu = environment.get("gpus"), environment.get("cpu")
    names = [str(gpu.get("name")) for gpu in gpus or () if isinstance(gpu, Mapping)]
    if names:
        return f"{len(names)} x {names[0]}" if len(names) > 1 else names[0]
    return _text(cpu.get("model")) if isinstance(cpu, Mapping) else None


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # Compared, since larger integers have no float.
    return float(value) if abs(value) <= LARGEST_INTEGER else None


def _progress(curves: Digest | None, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far the run came and what it reached."""
    if curves is None:
        return {}
    said = _number(plain.get("objective"))
    return {
        "objective": curves.best if said is None else said,
        "best_epoch": curves.best_epoch,
        "best_step": curves.best_step,
        "epochs": plain.get("epochs", curves.epochs),
        "steps": curves.steps,
        "throughput": curves.throughput,
    }
