"""Everything worth keeping about one evaluation: tables for programs, pictures for people."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from fovea.errors import FoveaError
from fovea.evaluation.confusion import count_confusions, plot_confusion_matrix
from fovea.evaluation.metrics import label_ranks
from fovea.evaluation.mistakes import plot_mistakes
from fovea.evaluation.predictions import Predictions


def write_report(
    folder: Path | str,
    predictions: Predictions,
    class_names: Sequence[str],
    images_of: Callable[[int], Tensor],
    path_of: Callable[[int], str],
    metrics: Mapping[str, float] | None = None,
    count: int = 25,
) -> dict[str, Path]:
    """Write metrics.json, per_class.csv, predictions.csv, confusion_matrix.png and mistakes.png.

    Args:
        folder: made if absent; files of these names are replaced.
        predictions: of N >= 1 samples.
        class_names: K names, in the order of the class numbers.
        images_of: gives the (C, h, w) uint8 image of a sample by its index.
        path_of: gives a sample's path, or another name for it.
        metrics: added to metrics.json, such as ``{"test/loss": 0.1}`` as the task logged it.
        count: how many mistakes are shown.

    Returns:
        the files by their name without suffix.

    Raises:
        FoveaError: there are no predictions.
    """
    if len(predictions) == 0:
        raise FoveaError(
            f"There is nothing to report in {folder}: no sample of the split could be read. "
            "data.check=true lists what is wrong with the files."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(name) for name in class_names]
    suffixes = (
        "metrics.json",
        "per_class.csv",
        "predictions.csv",
        "confusion_matrix.png",
        "mistakes.png",
    )
    files = {Path(name).stem: folder / name for name in suffixes}
    scores = {
        name: value if math.isfinite(value) else None  # JSON has no NaN
        for name, value in {**summarize(predictions), **(metrics or {})}.items()
    }
    files["metrics"].write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    tables = {
        "per_class": per_class_table(predictions, names),
        "predictions": predictions_table(predictions, names, path_of),
    }
    for name, table in tables.items():  # a path may hold bytes that are no text
        cells = table.map(lambda value: as_cell(value) if isinstance(value, str) else value)
        cells.to_csv(files[name], index=False, errors="backslashreplace")
    plot_confusion_matrix(predictions, names, files["confusion_matrix"])
    plot_mistakes(predictions, images_of, path_of, names, files["mistakes"], count)
    return files


def as_cell(text: str) -> str:
    """Return ``text`` for a cell of a table, with ``'`` in front of what a spreadsheet would run.

    A class called ``=HYPERLINK(…)`` is a formula to it. Numbers such as "-1" stay as they are.

    Source: OWASP, "CSV Injection".
    """
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?", text)
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") and text and not number else text


def summarize(predictions: Predictions) -> dict[str, Any]:
    """Return ``samples``, ``top1``, ``top5`` (K > 5), ``nll``, means over classes and calibration.

    ``nll`` is the mean negative log-likelihood in nats, without label smoothing or class weights.
    ``balanced_accuracy`` and ``macro_f1`` are means over the classes that occur. The expected
    ``calibration_error`` is in [0, 1], over 15 bins of equal width.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    ranks = label_ranks(predictions.logits, predictions.labels)
    classes = per_class_table(predictions, [""] * predictions.num_classes)
    present = classes[classes["samples"] > 0]
    scores = {"samples": len(predictions), "top1": (ranks == 0).double().mean().item()}
    if predictions.num_classes > 5:
        scores["top5"] = (ranks < 5).double().mean().item()
    nll = cross_entropy(predictions.logits.double(), predictions.labels)
    calibration = multiclass_calibration_error(
        predictions.probabilities, predictions.labels, predictions.num_classes, n_bins=15
    )
    return {
        **scores,
        "nll": nll.item(),
        "balanced_accuracy": float(present["recall"].mean()),
        "macro_f1": float(present["f1"].mean()),
        "calibration_error": calibration.item(),
    }


def per_class_table(predictions: Predictions, class_names: Sequence[str]) -> pd.DataFrame:
    """Return a row a class, in the order of the class numbers.

    Columns: ``class`` (number), ``name``, ``samples``, ``correct``, ``recall`` (empty without
    samples), ``precision`` (empty if never predicted), ``f1`` (0 if never right),
    ``most_confused_with`` and ``confused`` (how often).
    """
    counts = count_confusions(predictions)
    correct, samples, guessed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    off = counts * (1 - np.eye(len(counts), dtype=np.int64))
    partner = off.argmax(axis=1)
    confused = off.max(axis=1)
    with np.errstate(invalid="ignore"):
        table = {
            "class": np.arange(len(counts)),
            "name": list(class_names),
            "samples": samples,
            "correct": correct,
            "recall": correct / samples,
            "precision": correct / guessed,
            "f1": 2 * correct / (samples + guessed),
        }
    table["most_confused_with"] = [
        class_names[other] if n else "" for other, n in zip(partner, confused, strict=True)
    ]
    table["confused"] = confused
    return pd.DataFrame(table)


def predictions_table(
    predictions: Predictions, class_names: Sequence[str], path_of: Callable[[int], str]
) -> pd.DataFrame:
    """Return a row a sample: ``path, label, prediction, probability, correct``, classes by name."""
    probability, guess = predictions.probabilities.max(dim=1)
    return pd.DataFrame(
        {
            "path": [path_of(index) for index in predictions.indices.tolist()],
            "label": [class_names[label] for label in predictions.labels.tolist()],
            "prediction": [class_names[label] for label in guess.tolist()],
            "probability": probability.numpy().round(6),
            "correct": predictions.correct.numpy(),
        }
    )
