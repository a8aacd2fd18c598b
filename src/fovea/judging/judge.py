"""One network judged: its predictions, what they are calibrated on, its cost, its report."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import lightning

from fovea import run_folder
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.judging.candidates import Candidate
from fovea.judging.corrupted import measure_corruptions, with_corruptions
from fovea.judging.cost import measure_cost
from fovea.judging.duplicates import Images, Known, report_duplicates, training_images
from fovea.judging.harder import find_real_labels, score_real_labels
from fovea.judging.predicting import predict_split
from fovea.judging.reporting import images_of_data, keep, report, require_samples

log = logging.getLogger("fovea")


def judge(
    candidate: Candidate,
    trainer: lightning.Trainer,
    folder: Path,
    known_duplicates: Known | None = None,
) -> Predictions | None:
    """Return the predictions on the split that was asked for; keep them and write the report.

    Every rank has to call this; rank 0 gets the predictions and writes, the others get None.

    Args:
        candidate: its ``config`` says ``split``, ``calibrate``, ``cost``, ``real_labels`` and
            ``duplicates``; it has a ``plan`` of corruptions.
        trainer: gives devices and precision.
        folder: of the report; ``predictions/`` in it gets the files.
        known_duplicates: that were found for other networks; what is found is added.

    Raises:
        FoveaError: not one image of the split could be read; labels that are not to be had.
    """
    cfg, data = candidate.config, candidate.data
    right = find_real_labels(data, cfg.split, cfg.real_labels)
    trained = training_images(candidate) if cfg.duplicates else None

    def predict() -> Predictions | None:
        return predict_split(candidate.task, data, trainer, cfg.split, candidate.origin)

    found = predict()
    val = _predict_val(candidate, trainer) if _wants_val(candidate) else None
    for predictions in (found, val):  # before what takes 75 times as long
        if candidate.plan and predictions:
            keep(folder, predictions)
    measured = measure_corruptions(candidate, predict, found, folder, trainer.world_size == 1)
    if found is None:
        return None
    require_samples(found)
    found = with_corruptions(found, data, measured)
    metrics = {**found.about["metrics"], **score_real_labels(found, right)}
    found = dataclasses.replace(found, about={**found.about, "metrics": metrics})
    if cfg.cost:
        found = _with_cost(found, candidate, trainer)
    sections = []
    if trained is not None:
        known = {} if known_duplicates is None else known_duplicates
        judged = Images(data, cfg.split)
        found, section = report_duplicates(found, judged, trained, folder, known)
        sections.append(section)
    for predictions in (found, val):
        if predictions is not None:
            keep(folder, predictions)
    images_of = images_of_data(data, cfg.split)
    report(folder, found, images_of, val=val, measured=measured.table, sections=sections)
    return found


def _with_cost(
    predictions: Predictions, candidate: Candidate, trainer: lightning.Trainer
) -> Predictions:
    """Return ``predictions`` with ``cost`` in ``about``, end-to-end throughput included."""
    data, views = candidate.data, candidate.data.views.count
    batch = max(1, data.eval_batch_size // views) * views
    cost = {
        **measure_cost(candidate.task, trainer, data.image_shape, batch),
        "views_per_image": views,
        "end_to_end_images_per_second": len(predictions) / predictions.about["seconds"],
    }
    return dataclasses.replace(predictions, about={**predictions.about, "cost": cost})


def _wants_val(candidate: Candidate) -> bool:
    """Return whether temperature and threshold are to be fitted; say why not if that is news."""
    cfg = candidate.config
    if not cfg.calibrate or cfg.split == "val" or "val" not in candidate.data.splits:
        return False
    if not candidate.val_is_fair:
        log.info("Not calibrated: the network may have been trained on images of this val split.")
    return candidate.val_is_fair


def _predict_val(candidate: Candidate, trainer: lightning.Trainer) -> Predictions | None:
    """Return the predictions on val: those that the run kept, else new ones."""
    kept = _kept(candidate)
    # Rank 0 alone may see the run's folder, and all ranks have to do the same.
    if trainer.strategy.broadcast(kept is not None):
        return kept
    return predict_split(candidate.task, candidate.data, trainer, "val", candidate.origin)


def _kept(candidate: Candidate) -> Predictions | None:
    """Return the run's own predictions on val if those of the candidate would be the same."""
    data = candidate.data
    if candidate.reference is None:
        return None
    folder = Path(candidate.origin["ckpt"]).parent.parent
    try:
        kept = Predictions.load(run_folder.predictions(folder, "val"))
    except FoveaError:
        return None
    same = {
        "split": "val",
        "fingerprint": data.split_fingerprints()["val"],
        "weights": candidate.origin["weights"],
        "views": data.views.describe(),
        "preprocessing": data.preprocessing.to_dict(),
    }
    is_same = all(kept.about.get(key) == value for key, value in same.items())
    return kept if is_same and kept.class_names == tuple(data.class_names) else None
