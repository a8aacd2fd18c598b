"""What differs between two runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fovea.errors import FoveaError
from fovea.runs.curves import Run, folder_of
from fovea.runs.record import read_mapping
from fovea.runs.settings import OWN, flatten, parse_settings

_NOT_COMPARED = ("time", "command", "folder", "git", "slurm_job")
"""Of environment.json: they differ between any two runs, or stand elsewhere."""


def diff(a: Run, b: Run) -> pd.DataFrame:
    """Return what differs between two runs, a row a difference.

    Columns: ``part``, ``key``, ``a``, ``b`` (None where a run has no such key). The parts:

    - config: settings by their key, except where files go;
    - data: how the splits were cut, how many images they have, and the fingerprint of these;
    - environment: versions, host and hardware;
    - code: the git commit. Where one was dirty, a row ``dirty`` says so, also if both were: their
      code may differ in spite of the same commit.

    Args:
        a: a run's folder or its row of `fovea.runs.load`.
        b: the other one.

    Raises:
        FoveaError: a folder does not exist, or its config.yaml can't be read.
    """
    first, second = _parts(folder_of(a)), _parts(folder_of(b))
    rows = [
        (part, key, first[part].get(key), second[part].get(key))
        for part in first
        for key in dict.fromkeys([*first[part], *second[part]])
    ]
    kept = [
        row for row in rows if row[2] != row[3] or (row[:2] == ("code", "dirty") and row[2] is True)
    ]
    return pd.DataFrame(kept, columns=["part", "key", "a", "b"], dtype=object)


def _parts(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is compared of the run in ``folder``, flat, by part."""
    if not folder.is_dir():
        raise FoveaError(f"There is no run at {folder.absolute()}.")
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        settings = parse_settings(text, folder.absolute())
    except Exception as error:  # YAML from anywhere raises anything
        raise FoveaError(f"{folder / 'config.yaml'} can't be read: {error}") from None
    environment, summary = _json(folder, "environment.json"), _json(folder, "summary.json")
    git, splits = environment.get("git"), summary.get("splits")
    plain = {key: value for key, value in environment.items() if key not in _NOT_COMPARED}
    return {
        "config": {key: value for key, value in settings.items() if not OWN.match(key)},
        "data": flatten(splits) if isinstance(splits, Mapping) else {},
        "environment": flatten(plain),
        "code": dict(git) if isinstance(git, Mapping) else {},
    }


def _json(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON file of a run, empty where there is none, as in runs of older versions."""
    file = folder / name
    if not file.exists():
        return {}
    try:
        return read_mapping(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FoveaError(f"{file} can't be read: {error}") from None
