"""Logged runs read back as tables, with no network: one row a run, or the curves of one run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fovea.errors import FoveaError

__all__ = ["history", "load"]

_MARKS = ("config.yaml", "summary.json", "metrics.csv")
_ALWAYS_SHOWN = ("seed", "model.name", "data.batch_size", "trainer.max_epochs")


def load(folder: Path | str = "outputs") -> pd.DataFrame:
    """Return one row for each run folder below ``folder`` (or for itself), in natural order.

    Columns: ``id`` (path below ``folder``), ``path``, ``state`` (finished, interrupted, failed,
    running, or unknown where no summary tells), ``error`` (what could not be read, or why the run
    failed; else None), the other plain fields of summary.json such as ``objective`` and
    ``seconds``, the metrics by name (``val/top1``), then settings by their key: seed, model, batch
    size and epochs, and every other one in which the runs differ.

    A damaged run is a row with what could be read; it never raises.

    Raises:
        FoveaError: ``folder`` does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FoveaError(f"There is no folder of runs at {root.absolute()}. Runs go to: outputs")
    paths = sorted(_run_folders(root), key=lambda path: _natural(str(path)))
    rows = [_read(path, root) for path in paths]
    results = pd.DataFrame([row for row, _ in rows], columns=_columns([row for row, _ in rows]))
    settings = _telling([config for _, config in rows])
    return results.join(settings[[name for name in settings if name not in results]])


def history(run: Path | str | Mapping[str, Any] | pd.Series) -> pd.DataFrame:
    """Return metrics.csv of a run: ``epoch``, ``step``, and a column for each metric.

    Args:
        run: its folder, or its row of `load`.

    Raises:
        FoveaError: there is no such table, or it is damaged.
    """
    folder = Path(run if isinstance(run, str | Path) else run["path"])
    try:
        return pd.read_csv(folder / "metrics.csv")
    except (OSError, ValueError) as error:
        raise FoveaError(f"{folder} has no readable metrics.csv: {error}") from error


def _run_folders(root: Path) -> Iterator[Path]:
    for folder, children, files in os.walk(root):
        if any(mark in files for mark in _MARKS):
            children.clear()  # what lies inside belongs to the run
            yield Path(folder)


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts job 2 before job 10."""
    return [
        (int(part or -1), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


def _read(path: Path, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results and the flat settings of one run."""
    errors = []
    contents: dict[str, dict[str, Any]] = {}
    for name, parse in (("summary.json", json.loads), ("config.yaml", yaml.safe_load)):
        try:
            contents[name] = dict(parse((path / name).read_text(encoding="utf-8")))
        except Exception as error:  # whatever is wrong with the file, the other runs are shown
            contents[name] = {}
            errors.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    summary = contents["summary.json"]
    metrics = summary.pop("metrics", None)
    row = {
        "id": path.relative_to(root).as_posix(),
        "path": str(path.absolute()),
        "state": summary.pop("state", "unknown"),
        "error": "; ".join(errors) or summary.pop("error", None),
    }
    plain = {key: value for key, value in summary.items() if not isinstance(value, dict | list)}
    scores = metrics if isinstance(metrics, dict) else {}
    return {**row, **plain, **scores}, _flatten(contents["config.yaml"])


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names of all columns: fields of the summary first, then metrics."""
    names = dict.fromkeys(["id", "path", "state", "error", *(name for row in rows for name in row)])
    return sorted(names, key=lambda name: "/" in name)


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return ``{"model.name": "resnet18"}`` for nested settings; lists become text."""
    if not isinstance(config, dict):
        return {prefix: str(config) if isinstance(config, list) else config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _telling(configs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the settings that are always shown or that differ, except where files go."""
    table = pd.DataFrame(configs, index=range(len(configs)))
    own = re.compile(r"^(run_id|paths\..*|logger\..*|callbacks\..*\.dirpath)$")
    differing = [
        name
        for name in table
        if not own.match(name) and table[name].astype(str).nunique(dropna=False) > 1
    ]
    shown = [name for name in _ALWAYS_SHOWN if name in table]
    return table[list(dict.fromkeys([*shown, *differing]))]
