"""The report anew from predictions that were kept: no network, and images only for the pictures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.judging.ensemble import scores
from fovea.judging.harder import kept_corruptions
from fovea.judging.references import find_predictions
from fovea.judging.reporting import report, require_samples

log = logging.getLogger("fovea")


def load_all(given: str | Sequence[str], split: str) -> dict[str, Path]:
    """Return the file of each set of predictions by its name, once all were looked at.

    Args:
        given: see `find_predictions`.
        split: of folders; a file says itself what it is of.

    Raises:
        FoveaError: one is not there, damaged, or of another split than the others.
    """
    files = {name: Path(path) for name, path in find_predictions(given, split).items()}
    splits = {name: Predictions.load(path).about.get("split") for name, path in files.items()}
    if len(set(splits.values())) > 1:
        listed = ", ".join(f"{name}: {of or 'not known'}" for name, of in splits.items())
        raise FoveaError(
            f"The predictions are of different splits ({listed}), which one table can't show. "
            "Give folders and split=…, or files of one split."
        )
    return files


def load(path: Path, split: str) -> Predictions:
    """Return the predictions in ``path``, with their split and scores where a file lacks them."""
    found = Predictions.load(path)
    about = {"split": split, "ckpt": str(path), **found.about}
    if not about.get("metrics") and len(found):
        about["metrics"] = scores(found, about["split"])
    return dataclasses.replace(found, about=about)


def load_val(path: Path, of: Predictions) -> Predictions | None:
    """Return the val predictions beside the file ``path``, if they are of the same network.

    Both have to say which: by its ``weights``, or an ensemble by its ``members``.
    """
    place = path.with_name("val.npz")
    if not place.is_file() or place == path:
        return None
    val = Predictions.load(place)
    known = of.about.get("weights") or of.about.get("members")
    keys = ("weights", "views", "preprocessing", "members")
    if known and all(val.about.get(key) == of.about.get(key) for key in keys):
        return val
    log.info("Not used: %s, which does not say that it is of the same network.", place)
    return None


def remake(path: Path, split: str, folder: Path, calibrate: bool) -> Predictions:
    """Return the predictions in ``path`` after writing the report on them into ``folder``.

    Args:
        path: of the file.
        split: what an older file is of, which does not say.
        folder: of the report.
        calibrate: whether to fit on the val predictions beside the file, if there are any.

    Raises:
        FoveaError: no such file, damaged, or without a sample.
    """
    predictions = load(path, split)
    require_samples(predictions)
    val = load_val(path, predictions) if calibrate else None
    measured = kept_corruptions(path, predictions)
    report(folder, predictions, val=val, measured=measured)
    return predictions
