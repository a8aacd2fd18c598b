"""What a comparison needs of predictions: a few numbers a sample, instead of all logits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from fovea.evaluation.predictions import Predictions

SCORES = {"top1": "top-1", "balanced_accuracy": "balanced accuracy", "nll": "NLL"}
"""Names of the scores, the one that is judged first."""
SHARES = ("top1", "balanced_accuracy")
"""Those in [0, 1]."""

_CHUNK = 4096
"""Rows whose log-probabilities are computed at once, in float64."""


@dataclass(frozen=True, eq=False)
class Results:
    """N samples of one split as one network judged them.

    Attributes:
        indices: (N,) int64, which sample of the split.
        labels: (N,) int64 in [0, K).
        predicted: (N,) int64.
        correct: (N,) bool.
        confidence: (N,) float64, the probability of what is predicted.
        scores: (N,) float64 for each of `SCORES`, whose mean is the score.
        num_classes: K.
        class_names: K names; empty if unknown.
        paths: N names of the samples; empty if unknown.
        about: as in `Predictions`.
        digest: of the logits: equal for the same network on the same samples.
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]
    num_classes: int
    class_names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    def __len__(self) -> int:
        """Return N."""
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        """K names to show: those of the classes, else their numbers."""
        return self.class_names or tuple(str(number) for number in range(self.num_classes))


def judge(predictions: Predictions) -> Results:
    """Return ``predictions``, N >= 1, without their logits."""
    return Results(
        indices=predictions.indices.numpy(),
        labels=predictions.labels.numpy(),
        predicted=predictions.predicted.numpy(),
        correct=predictions.correct.numpy(),
        confidence=predictions.confidence.numpy(),
        scores=sample_scores(predictions),
        num_classes=predictions.num_classes,
        class_names=predictions.class_names,
        paths=predictions.paths,
        about=predictions.about,
        digest=hashlib.sha256(predictions.logits.contiguous().numpy().data).hexdigest(),
    )


def sample_scores(predictions: Predictions) -> dict[str, NDArray[np.float64]]:
    """Return (N,) values of each of `SCORES`, whose mean is the score.

    ``top1``: 1 where the prediction is right. ``balanced_accuracy``: the mean over the classes that
    occur, plus what a sample adds to or takes from it (its influence; to resample these is the
    bootstrap to first order: Efron and Tibshirani 1993, "An Introduction to the Bootstrap",
    ch. 22). ``nll``: nats; all NaN where one of them is not finite.
    """
    correct = predictions.correct.numpy().astype(np.float64)
    labels = predictions.labels.numpy()
    counts = np.bincount(labels, minlength=predictions.num_classes)
    recall = np.bincount(labels, correct, len(counts)) / np.maximum(1, counts)
    present = counts > 0
    weight = len(labels) / (present.sum() * counts[labels])
    balanced = recall[present].mean() + weight * (correct - recall[labels])
    parts = zip(predictions.logits.split(_CHUNK), predictions.labels.split(_CHUNK), strict=True)
    nll = np.concatenate(
        [cross_entropy(rows.double(), truth, reduction="none").numpy() for rows, truth in parts]
    )
    if not np.isfinite(nll).all():
        nll = np.full_like(nll, np.nan)
    return {"top1": correct, "balanced_accuracy": balanced, "nll": nll}
