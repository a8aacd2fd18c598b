"""What ``ckpt=`` and ``predictions=`` of eval name: one thing, a list, or a folder of runs."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from fovea import run_folder
from fovea.data.layout import natural_key
from fovea.errors import FoveaError

log = logging.getLogger("fovea")

ENSEMBLE = "ensemble"

_TAKEN = {
    ENSEMBLE,
    run_folder.PREDICTIONS,
    *("report.html", "report.md", "table.csv"),
    *("corruptions.csv", "corruptions_by_severity.csv", "corruptions.png"),
    *("config.yaml", "overrides.yaml", "environment.json", "summary.json", "eval.log"),
}
"""What stands beside the models' folders in the folder of all of them."""


def find_checkpoints(given: str | Sequence[str]) -> dict[str, str]:
    """Return what stands for each checkpoint that ``given`` names, by a name for it.

    Args:
        given: run folders, checkpoint files, or folders of runs (a sweep's): of the latter every
            run that has a checkpoint; those without are named in the log.

    Raises:
        FoveaError: one of them is not there or has no checkpoint; nothing was computed yet.
    """
    return _find("ckpt", given, lambda reference: run_folder.checkpoint(reference))


def find_predictions(given: str | Sequence[str], split: str) -> dict[str, str]:
    """Return each file of predictions that ``given`` names, by a name for it.

    Args:
        given: run folders, folders of evaluations, files, or folders of several of the former.
        split: which of a folder's files.

    Raises:
        FoveaError: one of them is not there or has no predictions on ``split``.
    """
    found = _find("predictions", given, lambda ref: run_folder.predictions(ref, split))
    return {name: str(run_folder.predictions(path, split)) for name, path in found.items()}


def _find(key: str, given: str | Sequence[str], locate: Callable[[str], Path]) -> dict[str, str]:
    named: dict[str, str] = {}
    for reference in [given] if isinstance(given, str) else given:
        members = _members(Path(reference).expanduser(), locate)
        if not members:
            _check_no_list(key, reference)
            locate(reference)  # says what is wrong with it
            members = [Path(reference).expanduser()]
        for path in members:
            name = _name(path)
            if len(members) > 1 or str(path) != str(Path(reference).expanduser()):
                name = f"{Path(reference).resolve().name}-{path.name}"
            named[_free(name, [*named, *_TAKEN])] = str(path)
    return named


def _check_no_list(key: str, reference: str) -> None:
    """Raise `FoveaError` if ``reference`` is several that are there, with commas between them."""
    parts = [Path(part).expanduser() for part in reference.split(",")]
    one = len(parts) == 1 or Path(reference).expanduser().exists()
    if not one and all(part.exists() for part in parts):
        raise FoveaError(f"A list stands in brackets: {key}=[{reference}]")


def _free(name: str, taken: Collection[str]) -> str:
    """Return ``name``, with a number behind it if it is taken: ``ensemble~2``."""
    numbered = (f"{name}~{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def _members(folder: Path, locate: Callable[[str], Path]) -> list[Path]:
    """Return the folders in ``folder`` that have what is looked for; none if it has it itself."""
    if not folder.is_dir() or _has(folder, locate):
        return []
    inside = sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: natural_key(p.name))
    there = [path for path in inside if _has(path, locate)]
    without = [p.name for p in inside if (p / "train.log").is_file() and p not in there]
    if there and without:
        log.warning("Left out, having nothing to be judged: %s", ", ".join(without))
    return there


def _has(folder: Path, locate: Callable[[str], Path]) -> bool:
    try:
        locate(str(folder))
    except FoveaError:
        return False
    return True


def _name(path: Path) -> str:
    """Return the name of a run's folder, and of a file in it that is not its best checkpoint."""
    path = path.resolve()
    if path.is_dir():
        return path.name
    inside = path.parent.name in (run_folder.CHECKPOINTS, run_folder.PREDICTIONS)
    run = path.parent.parent if inside else path.parent
    usual = path.stem == "best" or path.parent.name == run_folder.PREDICTIONS
    return run.name if usual else f"{run.name}-{path.stem}"
