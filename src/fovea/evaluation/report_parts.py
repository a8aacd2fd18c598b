"""The parts of a report: each writes its figures, and gives its sections and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from fovea.evaluation.class_plot import plot_classes
from fovea.evaluation.confusion import ORDERED_FROM, plot_confusion_matrix
from fovea.evaluation.confusions import worst_pairs
from fovea.evaluation.mistakes import plot_least_sure_hits, plot_mistakes
from fovea.evaluation.predictions import Predictions
from fovea.evaluation.sections import Part, Section
from fovea.pages import percent
from fovea.pages.tables import Cell

_MEANING = {
    "top1": "share of samples whose most probable class is the right one",
    "top5": "share with the right class among the five most probable",
    "top1_error": "1 − top1",
    "top5_error": "1 − top5, the error of ILSVRC",
    "balanced_accuracy": "mean accuracy of the classes, however many samples they have",
    "macro_precision": "mean of the classes; 0 for one that is never predicted",
    "macro_f1": "mean of the classes",
    "macro_auroc": "mean over the classes of the area under the ROC curve against the rest",
    "weighted_precision": "mean of the classes, weighted by their samples",
    "weighted_f1": "mean of the classes, weighted by their samples",
    "nll": "mean negative log-likelihood, in nats",
    "brier": "squared distance of the probabilities to the label, 0 to 2",
    "calibration_error": "how far confidence is from accuracy, mean over 15 equal bins (ECE)",
    "adaptive_calibration_error": "the same over 15 bins of as many samples each",
    "max_calibration_error": "the same, largest of the 15 equal bins",
    "aurc": "mean error rate among the 1, 2, … N most confident samples; smaller is better",
    "e_aurc": "aurc less that of an ordering with all mistakes at the end",
}
_NOT_SHARES = {"nll", "brier", "aurc", "e_aurc"}
_PAIRS = 30
_COST = (
    "flops are the operations of one image, a multiply-add being two of them. Images per second "
    "and latency are of the network alone, warm; end to end includes reading the images."
)


def headline(
    predictions: Predictions,
    scores: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> Part:
    """Return the result in a sentence, and all scores with their intervals as a table."""
    classes = "class" if predictions.num_classes == 1 else "classes"
    images = "image" if len(predictions) == 1 else "images"
    sentences = [
        f"{title} {percent(scores[name])} (95 % interval {percent(low)} to {percent(high)}), "
        f"error rate {percent(1 - scores[name])} ({percent(1 - high)} to {percent(1 - low)})."
        for name, title in (("top1", "Top-1 accuracy"), ("top5", "Top-5 accuracy"))
        if name in scores
        for low, high in (intervals[name],)
    ]
    text = f"{len(predictions):,} {images} of {predictions.num_classes:,} {classes}. "
    rows = []
    for name, meaning in _MEANING.items():
        if name in scores:
            low, high = intervals.get(name, (float("nan"), float("nan")))
            cells = [_written(name, value) for value in (scores[name], low, high)]
            rows.append([name, *cells, meaning])
    table = pd.DataFrame(rows, columns=["score", "value", "95 % from", "to", "what it is"])
    return Part(
        [Section("", text=text + " ".join(sentences)), Section("Scores", table)],
        {**scores, "intervals": {name: list(pair) for name, pair in intervals.items()}},
    )


def _written(name: str, value: float) -> Cell | None:
    if value != value:
        return None
    text = f"{value:.4f}" if name in _NOT_SHARES else percent(value)
    return Cell(text, value)


def origin(predictions: Predictions, cost: Mapping[str, Any] | None) -> Part:
    """Return what was evaluated, and what it costs."""
    about = {
        name.replace("_", " "): _plain(value)
        for name, value in predictions.about.items()
        if name != "warnings"  # they stand on top of the page
    }
    sections = []
    if about:
        table = pd.DataFrame({"": list(about), "value": list(about.values())})
        sections.append(Section("What was evaluated", table))
    if cost:
        cells = {name.replace("_", " "): value for name, value in cost.items()}
        table = pd.DataFrame({"": list(cells), "value": pd.Series(cells.values(), dtype=object)})
        sections.append(Section("Cost", table, text=_COST))
    return Part(sections, {"about": predictions.about, **({"cost": dict(cost)} if cost else {})})


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        more = f" and {len(value) - 5} more" if len(value) > 5 else ""
        return ", ".join(str(item) for item in value[:5]) + more
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def class_part(table: pd.DataFrame, top1: float, folder: Path) -> Part:
    """Return accuracy and the other scores of every class."""
    figure = folder / "classes.png"
    plot_classes(table, top1, figure)
    shown = table.drop(columns=["correct", "confusion_place"]).rename(
        columns={"recall": "accuracy", "recall_low": "95 % from", "recall_high": "to"}
    )
    shares = ["accuracy", "95 % from", "to", "precision", "f1"]
    formats = {**dict.fromkeys(shares, ".2%"), "auroc": ".4f"}
    return Part(
        [
            Section("Classes", figure=figure),
            Section(
                "",
                shown.rename(columns=lambda name: name.replace("_", " ")),
                text="Accuracy is recall: the share of the class's samples that are recognised.",
                formats=formats,
                file="per_class.csv",
            ),
        ]
    )


def confusion_part(predictions: Predictions, order: NDArray[np.int64], folder: Path) -> Part:
    """Return the confusion matrix, its classes in ``order``, and the worst pairs."""
    figure = folder / "confusion_matrix.png"
    plot_confusion_matrix(predictions, figure, order)
    text = "Rows are true classes, columns predicted ones."
    if predictions.num_classes >= ORDERED_FROM:
        text += (
            " Classes that are taken for each other stand side by side (clustered by their "
            "confusions), so blocks along the diagonal are groups of similar classes. A class's "
            "place is in per_class.csv, under confusion_place."
        )
    pairs = worst_pairs(predictions, _PAIRS)
    listed = f"The {len(pairs)} most frequent confusions" if len(pairs) else "No confusions"
    return Part(
        [
            Section("Confusions", figure=figure, text=text),
            Section(
                "",
                pairs if len(pairs) else None,
                text=f"{listed}; share is of the true class, reverse how often it went the other "
                "way."
                if len(pairs)
                else f"{listed}.",
                formats={"share": ".1%"},
            ),
        ],
        {"worst_pairs": pairs.to_dict("records")},
    )


def picture_part(
    predictions: Predictions, images_of: Callable[[int], Tensor], count: int, folder: Path
) -> Part:
    """Return the sheets of the most confident mistakes and of the least sure hits."""
    mistakes, hits = folder / "mistakes.png", folder / "least_sure_hits.png"
    plot_mistakes(predictions, images_of, mistakes, count)
    plot_least_sure_hits(predictions, images_of, hits, count)
    return Part(
        [
            Section(
                "Most confident mistakes",
                figure=mistakes,
                text="Look here for wrong labels, and for what the network took as evidence.",
            ),
            Section(
                "Least sure hits",
                figure=hits,
                text="Right, but nearly not: under each prediction the next best class.",
            ),
        ]
    )
