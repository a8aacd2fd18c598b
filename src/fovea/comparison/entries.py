"""What is compared: results on one split, with what is known of the run that got them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fovea import run_folder, runs
from fovea.auto_resume import NO_MATTER, PLACE
from fovea.comparison.results import Results, judge
from fovea.errors import FoveaError
from fovea.evaluation.predictions import Predictions
from fovea.runs.settings import OWN, parse_settings

# What may differ between runs of one system: chance, where and beside what they ran, and where
# their files go. Other images under data.root would show in the fingerprint of the split.
_NOT_THE_SYSTEM = re.compile(
    rf"(.*\.)?(seed|memory_fraction|collective_timeout)|test|data\.(root|check)"
    rf"|({'|'.join(map(re.escape, (*PLACE, *NO_MATTER, 'hydra')))})(\..*)?|{OWN.pattern}"
)
_USUAL_VIEWS, _USUAL_CHECKPOINT = "center", "best.ckpt"


@dataclass(frozen=True, eq=False)
class Entry:
    """One run's results on one split.

    Attributes:
        name: of its folder or file.
        results: on the split that is compared.
        file: of predictions that they were read from; None if they never were in one.
        folder: of the training run; None where that is not known.
        settings: what its system is: the configuration by dotted keys, without seeds and places;
            empty where that is not known.
        seed: of the training run; None where that is not known.
        summary: summary.json of the training run; empty where there is none.
    """

    name: str
    results: Results
    file: Path | None = None
    folder: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    summary: dict[str, Any] = field(default_factory=dict)


def read_entries(references: Sequence[str | Path], split: str) -> tuple[list[Entry], list[str]]:
    """Return what ``references`` name, and notes on what was left out.

    Args:
        references: run folders, folders of an evaluation, files of predictions, or folders that
            hold several runs (a sweep), of which those without predictions are left out.
        split: whose predictions, where a folder may hold several.

    Raises:
        FoveaError: there is no such thing, or it has no predictions for ``split``: says which
            command makes them.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    for reference in references:
        path = Path(reference).expanduser()
        models = _models_of(path, split)
        if not models and (not path.is_dir() or _is_run(path)):
            entries.append(read_entry(path, split))
            continue
        missing = None
        for folder in models or _runs_below(path):
            try:
                entries.append(read_entry(folder, split))
            except FoveaError as error:
                missing = missing or error
                notes.append(f"{folder.name} is left out: it has no predictions of '{split}'.")
        if missing is not None and len(entries) < 2:
            raise FoveaError(f"No two runs in {path} have predictions of '{split}'. {missing}")
    return entries, notes


def read_entry(reference: str | Path, split: str) -> Entry:
    """Return the predictions of one run, one evaluation or one file.

    Raises:
        FoveaError: there are none; says which command makes them.
    """
    file = run_folder.predictions(reference, split)
    predictions = Predictions.load(file)
    if len(predictions) == 0:
        raise FoveaError(f"{file} holds no predictions: no sample of the split could be read.")
    place = file.parent.parent if file.parent.name == run_folder.PREDICTIONS else file.parent
    folder = _training_run(place, predictions)
    config = read_settings(place if folder is None else folder)
    if "members" in predictions.about:  # an ensemble is of no one run
        config = {}
    seed = config.get("seed")
    return Entry(
        name=file.stem if place == file.parent else place.name,
        results=judge(predictions),
        file=file,
        folder=folder,
        settings=system_settings({**config, **_how_seen(predictions)}) if config else {},
        seed=seed if folder is not None and isinstance(seed, int) else None,
        summary={} if folder is None else _read_summary(folder),
    )


def _training_run(place: Path, predictions: Predictions) -> Path | None:
    """Return the folder of the run that made the network; None if it is not known or gone.

    Args:
        place: that the predictions are kept in: of that run, or of an evaluation.
        predictions: say which checkpoint they are of.
    """
    if (place / "config.yaml").is_file() and "ckpt" not in read_settings(place):
        return place  # wherever it was moved to
    path = Path(str(predictions.about.get("ckpt") or "none"))
    folders = [path, path.parent, path.parent.parent]
    return next((folder for folder in folders if (folder / "config.yaml").is_file()), None)


def system_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return those settings that make a run another system, as text."""
    return {
        key: str(value) for key, value in settings.items() if not _NOT_THE_SYSTEM.fullmatch(key)
    }


def _how_seen(predictions: Predictions) -> dict[str, Any]:
    """Return what of an evaluation makes it another system than the same run seen otherwise."""
    about = predictions.about
    seen = {f"eval.{key}": value for key, value in (about.get("preprocessing") or {}).items()}
    if about.get("views", _USUAL_VIEWS) != _USUAL_VIEWS:
        seen["eval.views"] = about["views"]
    checkpoint = Path(str(about.get("ckpt") or "")).name
    if checkpoint.endswith(".ckpt") and checkpoint != _USUAL_CHECKPOINT:
        seen["eval.checkpoint"] = checkpoint
    return seen


def read_settings(folder: Path) -> dict[str, Any]:
    """Return a run's configuration by dotted keys; empty where there is none, or it is damaged.

    Paths into its own folder begin with `fovea.runs.settings.RUN`: they are alike for all runs.
    """
    try:
        return parse_settings((folder / "config.yaml").read_text(encoding="utf-8"), folder)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}


def _is_run(folder: Path) -> bool:
    marks = ("config.yaml", "summary.json", run_folder.PREDICTIONS, run_folder.CHECKPOINTS)
    return any((folder / mark).exists() for mark in marks)


def _models_of(folder: Path, split: str) -> list[Path]:
    """Return the folders of the models that an evaluation of several judged on ``split``."""
    found = sorted(folder.glob(f"*/{run_folder.PREDICTIONS}/{split}.npz"))
    return [file.parent.parent for file in found if (folder / "config.yaml").is_file()]


def _runs_below(folder: Path) -> list[Path]:
    """Return the folders of all runs in ``folder``."""
    found = [Path(path) for path in runs.load(folder)["path"]]
    if not found:
        raise FoveaError(
            f"{folder} is no run, and holds none. Give run folders, as in "
            "python scripts/compare.py outputs/<run> outputs/<run>"
        )
    return found


def _read_summary(folder: Path) -> dict[str, Any]:
    try:
        summary = run_folder.read_summary(folder)
        return summary if isinstance(summary, dict) else {}
    except (OSError, ValueError):  # cut off while it was written, say
        return {}
