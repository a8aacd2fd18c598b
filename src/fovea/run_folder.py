"""Where a run keeps its files, and how a run is named by its folder or by one of its checkpoints.

::

    outputs/2026-01-31_12-00-00_3fa9c1/
        config.yaml        everything the run was composed of, resolved
        overrides.yaml     what was typed
        environment.json   versions, git commit, hardware
        train.log          what was printed, warnings included
        metrics.csv        the curves
        summary.json       state, final metrics, objective, best checkpoint, seconds
        checkpoints/       best.ckpt; last.ckpt, and last-1.ckpt, what that was before
        predictions/       val.npz and, if it was touched, test.npz, of the best checkpoint
        tune/              what `tune` found, where it was asked to
        report/            curves, confusion matrix, worst mistakes as PNG; tables as CSV

Nothing here imports torch.
"""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fovea.checkpoints import durable, generations
from fovea.errors import FoveaError, did_you_mean
from fovea.safety.redaction import redact, redact_words

CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"


def checkpoint(reference: str | Path, which: str = "best") -> Path:
    """Return the checkpoint file that ``reference`` names.

    Args:
        reference: a checkpoint, or a run folder.
        which: "best" or "last", of a run folder; the other one where it does not exist. Without a
            last one, the one before it is the last.

    Raises:
        FoveaError: there is no such file or folder, or the run has no checkpoint.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return path.resolve()
    if not path.is_dir():
        raise _missing(reference, "checkpoint or run folder")
    for name in (which, "best", "last"):
        for folder in (path / CHECKPOINTS, path):
            if found := generations.existing(folder / f"{name}.ckpt"):
                return found[0].resolve()
    raise FoveaError(
        f"{reference} holds no {CHECKPOINTS}/best.ckpt or last.ckpt. Was the run ended before its "
        "first epoch was over? Give a run that has one, or the path of a .ckpt file."
    )


def predictions(reference: str | Path, split: str) -> Path:
    """Return the file of predictions on ``split`` that ``reference`` names.

    Args:
        reference: the folder of a run or of an evaluation, or such a file itself.
        split: "train", "val" or "test"; not asked of a file.

    Raises:
        FoveaError: there is no such file or folder, or it holds no predictions on the split.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return path.resolve()
    if not path.is_dir():
        raise _missing(reference, "run folder or file of predictions")
    found = path / PREDICTIONS / f"{split}.npz"
    if found.is_file():
        return found.resolve()
    others = ", ".join(sorted(file.stem for file in found.parent.glob("*.npz")))
    run = reference if has_checkpoint(path) else "outputs/<run>"
    raise FoveaError(
        f"{reference} holds no predictions on '{split}'{others and f', only on {others}'}. "
        f"To make them: python src/eval.py ckpt={run} split={split}"
    )


def _missing(reference: str | Path, what: str) -> FoveaError:
    """Return what to say of a ``reference`` that is nowhere, with what it may have meant."""
    path = Path(reference).expanduser()
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings) or _newest(path.parent)
    return FoveaError(f"{reference}: no such {what} (looked in {Path.cwd()}).{hint}")


def has_checkpoint(folder: Path) -> bool:
    """Return whether the run in ``folder`` has a checkpoint to go on from."""
    return bool(generations.existing(folder / CHECKPOINTS / generations.LAST))


def whole_checkpoint(reference: str | Path, which: str = "best") -> Path:
    """Return the file that `checkpoint` finds, once its checksums were compared.

    Of a run folder's last checkpoints the newest that is whole; of those that are not, a warning
    tells.

    Raises:
        FoveaError: as `checkpoint` does, or no such file is whole: says why, and what there is.
    """
    # Not at the import: Hydra switches off the loggers that are there when it starts.
    log = logging.getLogger("fovea")
    path = checkpoint(reference, which)
    last = path.with_name(generations.LAST)
    several = Path(reference).expanduser().is_dir() and path in generations.existing(last)
    found = generations.existing(last) if several else [path]
    bad: list[str] = []
    for file in found:
        reason = generations.damage(file)
        if reason is None:
            if bad:
                log.warning("WARNING: %s. %s is used, the one before.", "; ".join(bad), file.name)
            return file
        bad.append(f"{file} is damaged: {reason}")
    others = [str(file) for file in sorted(path.parent.glob("*.ckpt")) if file not in found]
    raise FoveaError(
        f"{'; '.join(bad)}.\n  Other checkpoints of the run, not looked at: "
        f"{', '.join(others) or 'none'}"
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
    """Write config.yaml, overrides.yaml and environment.json into ``folder``, secrets left out."""
    durable.write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(redact(config))))
    words = redact_words(overrides)
    durable.write_text(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(words)))
    durable.write_text(
        folder / "environment.json", json.dumps(redact(environment), indent=2) + "\n"
    )


def read_overrides(folder: Path) -> list[str]:
    """Return what was typed for the run in ``folder``."""
    return [str(word) for word in OmegaConf.load(folder / "overrides.yaml")]


def read_config(folder: Path) -> DictConfig:
    """Return the resolved configuration of the run in ``folder``.

    Raises:
        FoveaError: the file is damaged.
    """
    try:
        config = OmegaConf.load(folder / "config.yaml")
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise FoveaError(f"{folder / 'config.yaml'} can't be read: {first}") from None
    if not isinstance(config, DictConfig):
        raise FoveaError(f"{folder / 'config.yaml'} is no configuration of a run.")
    return config


def amend_config(folder: Path, key: str, value: Any) -> None:
    """Change one value in config.yaml."""
    config = read_config(folder)
    OmegaConf.update(config, key, value)
    durable.write_text(folder / "config.yaml", OmegaConf.to_yaml(config))


def write_summary(folder: Path, **fields: Any) -> None:
    """Merge ``fields`` into summary.json."""
    summary = redact({**read_summary(folder), **fields})
    durable.write_text(folder / "summary.json", json.dumps(_without_nan(summary), indent=2) + "\n")


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
        probe.unlink(missing_ok=True)  # by another rank
    except OSError as error:
        raise FoveaError(
            f"Can't write into the output folder {folder}: {error.strerror}. "
            "Choose another one: paths.outputs=/path/with/room"
        ) from None
