"""The scores of a classifier on one split, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fovea.evaluation.auroc import macro_auroc_interval, one_vs_rest_auroc
from fovea.evaluation.calibration import calibration_error, max_calibration_error, reliability
from fovea.evaluation.confusions import count_confusions
from fovea.evaluation.intervals import bootstrap, wilson
from fovea.evaluation.predictions import Predictions
from fovea.evaluation.selective import aurc, confidence_levels, excess_aurc, risk_area

_CHUNK = 4096
"""Rows of logits that are taken at once in float64."""


def summarize(predictions: Predictions) -> dict[str, float]:
    """Return the scores by name; shares and errors lie in [0, 1].

    - ``samples``, and ``invalid_logits``: how many of them have no probabilities (see
      `Predictions`). They count as wrong; what is computed from probabilities leaves them out.
    - ``top1``, ``top1_error`` and, with more than five classes, ``top5``, ``top5_error``: ILSVRC's.
    - Means over the classes that occur: ``balanced_accuracy`` (of the recalls),
      ``macro_precision`` (0 for a class that is never predicted), ``macro_f1``, ``macro_auroc``
      (one against the rest). Weighted by samples: ``weighted_precision``, ``weighted_f1``.
    - ``nll`` in nats, without label smoothing or class weights; ``brier``, the squared distance
      to the one-hot label, summed over the classes, in [0, 2].
    - ``calibration_error`` and ``max_calibration_error`` over 15 bins of equal width,
      ``adaptive_calibration_error`` over 15 bins of as many samples each.
    - ``aurc``, ``e_aurc``: see `fovea.evaluation.selective`.

    What is not defined, as the AUROC of a single class, is NaN.

    Raises:
        FoveaError: there are no predictions.
    """
    predictions.require_samples("Scores")
    counts = count_confusions(predictions)
    samples = predictions.labels.bincount(minlength=len(counts)).numpy()
    auroc = one_vs_rest_auroc(predictions)
    nll, brier = proper_scores(predictions)
    bins, even_bins = reliability(predictions), reliability(predictions, adaptive=True)
    return {
        "samples": len(predictions),
        "invalid_logits": int((~predictions.valid).sum()),
        **{name: hits / len(predictions) for name, hits in _hits(predictions).items()},
        **_class_means(samples, np.diag(counts), counts.sum(axis=0)),
        "macro_auroc": _mean(auroc[~np.isnan(auroc)]),
        "nll": _mean(nll[predictions.valid.numpy()]),
        "brier": _mean(brier[predictions.valid.numpy()]),
        "calibration_error": calibration_error(bins),
        "adaptive_calibration_error": calibration_error(even_bins),
        "max_calibration_error": max_calibration_error(bins),
        "aurc": aurc(predictions),
        "e_aurc": excess_aurc(predictions),
    }


def _hits(predictions: Predictions) -> dict[str, int]:
    """Return how many samples count for each share, such as ``top5_error``."""
    hits = {}
    for k in (1, 5) if predictions.num_classes > 5 else (1,):
        hits[f"top{k}"] = int((predictions.ranks < k).sum())
        hits[f"top{k}_error"] = len(predictions) - hits[f"top{k}"]
    return hits


def _class_means(
    samples: NDArray[np.int64], correct: NDArray[np.int64], guessed: NDArray[np.int64]
) -> dict[str, float]:
    """Return the means over the classes that occur, from (K,) counts of each class."""
    present = samples > 0
    samples, correct, guessed = samples[present], correct[present], guessed[present]
    precision = correct / np.maximum(1, guessed)
    f1 = 2 * correct / (samples + guessed)
    share = samples / samples.sum()
    return {
        "balanced_accuracy": float((correct / samples).mean()),
        "macro_precision": float(precision.mean()),
        "macro_f1": float(f1.mean()),
        "weighted_precision": float((precision * share).sum()),
        "weighted_f1": float((f1 * share).sum()),
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def proper_scores(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the NLL in nats and the Brier score of each sample, (N,) float64 each.

    NaN where the row is not `valid`.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    losses, squares = [np.zeros(0)], [np.zeros(0)]
    chunks = predictions.logits.split(_CHUNK), predictions.labels.split(_CHUNK)
    for logits, labels in zip(*chunks, strict=True):
        logs = logits.double().log_softmax(dim=1)
        own = logs.gather(1, labels[:, None])[:, 0]
        losses.append((-own).numpy())
        squares.append((logs.exp().square().sum(dim=1) - 2 * own.exp() + 1).numpy())
    return np.concatenate(losses), np.concatenate(squares)


def score_intervals(
    predictions: Predictions, seed: int = 0, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the scores of `summarize` by name; NaN where nothing can be said.

    Wilson's for top-1, top-5 and their error rates; DeLong's for ``macro_auroc``; for the others
    the bootstrap over samples (see `intervals.bootstrap`; not stratified).

    The calibration errors have none: noise in the bins only ever adds to them, and resampling adds
    more, so that the interval of a well calibrated network would lie above its own score. The
    Wilson bounds of `reliability` say how sure each bin is.

    Raises:
        FoveaError: there are no predictions.
    """
    predictions.require_samples("Intervals")
    n = len(predictions)
    statistic = _Resampled(predictions)
    low, high = np.clip(bootstrap(statistic, n, seed, resamples), 0, statistic.highest)
    return {
        **{name: wilson(hits, n) for name, hits in _hits(predictions).items()},
        **dict(zip(statistic.names, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        "macro_auroc": macro_auroc_interval(predictions),
    }


class _Resampled:
    """The scores of any rows, looked up from what is computed once for each row."""

    names = ("nll", "brier", "aurc", *_class_means(*np.ones((3, 1), dtype=np.int64)))
    highest = (np.inf, 2.0, *[1.0] * (len(names) - 2))

    def __init__(self, predictions: Predictions) -> None:
        self.valid = predictions.valid.numpy()
        self.losses, self.squares = (
            np.where(self.valid, values, 0) for values in proper_scores(predictions)
        )
        self.levels = confidence_levels(predictions)
        self.correct = predictions.correct.numpy()
        self.labels = predictions.labels.numpy()
        self.guesses = predictions.predicted.numpy()
        self.k = predictions.num_classes

    def __call__(self, rows: NDArray[np.int64]) -> list[float]:
        valid, right = self.valid[rows], rows[self.correct[rows]]
        usable = np.count_nonzero(valid) or np.nan
        count = self.levels.max() + 1
        levels = np.bincount(self.levels[rows], minlength=count)
        right_levels = np.bincount(self.levels[right], minlength=count)
        means = _class_means(
            np.bincount(self.labels[rows], minlength=self.k),
            np.bincount(self.labels[right], minlength=self.k),
            np.bincount(self.guesses[rows[valid]], minlength=self.k),
        )
        return [
            self.losses[rows].sum() / usable,
            self.squares[rows].sum() / usable,
            risk_area(levels, right_levels),
            *means.values(),
        ]


def per_class_table(predictions: Predictions) -> pd.DataFrame:
    """Return a row a class, in the order of the class numbers.

    Columns: ``class`` (number), ``name``, ``samples``, ``correct``, ``recall`` (the class's
    accuracy; NaN without samples) with its 95 % Wilson bounds ``recall_low`` and ``recall_high``,
    ``precision`` (NaN if never predicted), ``f1`` (NaN if neither), ``auroc`` (against the rest;
    NaN without samples), ``most_confused_with`` and ``confused`` (how often).
    """
    counts = count_confusions(predictions)
    samples = predictions.labels.bincount(minlength=len(counts)).numpy()
    correct, guessed = np.diag(counts), counts.sum(axis=0)
    off = counts - np.diag(correct)
    low, high = wilson(correct, samples)
    partners = zip(off.argmax(axis=1), off.max(axis=1), strict=True)
    with np.errstate(invalid="ignore"):
        columns: Mapping[str, object] = {
            "class": np.arange(len(counts)),
            "name": predictions.names,
            "samples": samples,
            "correct": correct,
            "recall": correct / samples,
            "recall_low": low,
            "recall_high": high,
            "precision": correct / guessed,
            "f1": 2 * correct / (samples + guessed),
            "auroc": one_vs_rest_auroc(predictions),
            "most_confused_with": [predictions.names[i] if n else "" for i, n in partners],
            "confused": off.max(axis=1),
        }
        return pd.DataFrame(columns)
