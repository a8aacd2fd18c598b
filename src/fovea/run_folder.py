"""Where a run keeps its files, and how a run is named by its folder or by one of its checkpoints.

::

    outputs/2026-01-31_12-00-00_3fa9c1/
        config.yaml        everything the run was composed of, resolved
        overrides.yaml     what was typed
        environment.json   versions, git commit, hardware
        train.log          what was printed, warnings included
        metrics.csv        the curves
        summary.json       state, final metrics, objective, best checkpoint, seconds
        checkpoints/       best.ckpt, last.ckpt
        report/            curves, confusion matrix, worst mistakes as PNG; tables as CSV

Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fovea.errors import FoveaError, did_you_mean

CHECKPOINTS = "checkpoints"


def checkpoint(reference: str | Path, which: str = "best") -> Path:
    """Return the checkpoint file that ``reference`` names.

    Args:
        reference: a checkpoint, or a run folder.
        which: "best" or "last", of a run folder; the other one where it does not exist.

    Raises:
        FoveaError: there is no such file or folder, or the run has no checkpoint.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return path.resolve()
    if not path.is_dir():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, siblings) or _newest(path.parent)
        raise FoveaError(
            f"{reference}: no such checkpoint or run folder (looked in {Path.cwd()}).{hint}"
        )
    for name in (which, "best", "last"):
        for folder in (path / CHECKPOINTS, path):
            if (folder / f"{name}.ckpt").is_file():
                return (folder / f"{name}.ckpt").resolve()
    raise FoveaError(
        f"{reference} holds no {CHECKPOINTS}/best.ckpt or last.ckpt. Was the run ended before its "
        "first epoch was over? Give a run that has one, or the path of a .ckpt file."
    )


def _newest(folder: Path) -> str:
    runs = [p for p in folder.glob("*") if (p / CHECKPOINTS).is_dir()] if folder.is_dir() else []
    return f" The newest run there is {max(runs, key=os.path.getmtime)}." if runs else ""


def of_checkpoint(path: Path) -> Path:
    """Return the run folder that the checkpoint at ``path`` belongs to.

    Raises:
        FoveaError: it lies outside a run folder, so its run can't be gone on with.
    """
    folder = path.parent.parent if path.parent.name == CHECKPOINTS else path.parent
    if not (folder / "config.yaml").is_file():
        raise FoveaError(
            f"resume={path}: there is no config.yaml of a run beside it, so the run can't go on. "
            f"To start a new run from these weights: model.weights={path}"
        )
    return folder


def write_record(
    folder: Path, config: dict[str, Any], overrides: list[str], environment: dict[str, Any]
) -> None:
    """Write config.yaml, overrides.yaml and environment.json into ``folder``."""
    _write(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    _write(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    _write(folder / "environment.json", json.dumps(environment, indent=2) + "\n")


def read_config(folder: Path) -> DictConfig:
    """Return the resolved configuration of the run in ``folder``."""
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    return config


def write_summary(folder: Path, **fields: Any) -> None:
    """Merge ``fields`` into summary.json."""
    summary = {**read_summary(folder), **fields}
    _write(folder / "summary.json", json.dumps(_without_nan(summary), indent=2) + "\n")


def _without_nan(value: Any) -> Any:
    """Return ``value`` with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_summary(folder: Path) -> dict[str, Any]:
    """Return summary.json, empty where there is none yet."""
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def check_writable(folder: Path) -> None:
    """Raise `FoveaError` unless files can be made in ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise FoveaError(
            f"Can't write into the output folder {folder}: {error.strerror}. "
            "Choose another one: paths.outputs=/path/with/room"
        ) from None


def _write(path: Path, text: str) -> None:
    """Replace ``path`` as a whole, so that a reader never meets half a file."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
