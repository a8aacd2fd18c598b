"""The part of a report on two classes: ROC, sensitivity, a threshold and what it gives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from fovea.errors import FoveaError
from fovea.evaluation.auroc import one_vs_rest_auroc
from fovea.evaluation.binary import (
    Share,
    at_threshold,
    average_precision,
    choose_threshold,
    positives_and_scores,
    precision_recall_curve,
    roc_curve,
    sensitivity_at_specificity,
)
from fovea.evaluation.binary_plots import Point, plot_precision_recall, plot_roc
from fovea.evaluation.predictions import Predictions
from fovea.evaluation.sections import Part, Section

_SPECIFICITIES = (0.8, 0.9, 0.95, 0.99)
_WORDS = {
    "sensitivity": "sensitivity (recall)",
    "specificity": "specificity",
    "ppv": "positive predictive value (precision)",
    "npv": "negative predictive value",
    "accuracy": "accuracy",
}
_FORMATS = dict.fromkeys(["value", "95 % from", "to", "sensitivity", "specificity"], ".2%")


def binary_part(
    predictions: Predictions, val: Predictions | None, without: str, folder: Path
) -> Part:
    """Return what is asked of a test with two outcomes; the positive one is class number 1.

    Args:
        predictions: of N >= 1 samples of two classes.
        val: of another split, on which the threshold is chosen.
        without: said if there is no ``val``: why.
        folder: where the figures go.
    """
    try:
        truth, _ = positives_and_scores(predictions)
    except FoveaError as error:
        return Part([Section("Two classes", text=str(error))])
    threshold, origin = _threshold(val, without)
    shares = at_threshold(predictions, threshold)
    areas = {
        "auroc": float(one_vs_rest_auroc(predictions)[1]),
        "average_precision": average_precision(predictions),
    }
    text = (
        f"Positive is '{predictions.names[1]}', {int(truth.sum()):,} of {len(truth):,} samples; "
        f"negative '{predictions.names[0]}'. {origin}"
    )
    sections = [
        Section("Two classes", _shares_table(shares), text=text, formats=_FORMATS),
        Section("", _counts_table(shares, predictions.names), text="Its confusion table:"),
        _by_specificity(predictions),
        *_figures(predictions, areas, shares, float(truth.mean()), folder),
    ]
    numbers = {
        **areas,
        "threshold": threshold,
        "at_threshold": {name: asdict(share) for name, share in shares.items()},
    }
    return Part(sections, {"binary": numbers})


def _threshold(val: Predictions | None, without: str) -> tuple[float, str]:
    """Return the probability from which on a sample is called positive, and where it is from."""
    if val is not None:
        try:
            threshold = choose_threshold(val)
        except FoveaError as error:
            without = f"No threshold could be chosen on val: {error}"
        else:
            return threshold, (
                f"From a probability of {threshold:.4f} on a sample is called positive: on val "
                "this threshold has the largest sum of sensitivity and specificity (Youden)."
            )
    return 0.5, f"{without} A sample is called positive from a probability of 0.5 on."


def _shares_table(shares: dict[str, Share]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "at the threshold": words,
                "value": shares[name].value,
                "95 % from": shares[name].low,
                "to": shares[name].high,
                "of": shares[name].n,
            }
            for name, words in _WORDS.items()
        ]
    )


def _counts_table(shares: dict[str, Share], names: tuple[str, ...]) -> pd.DataFrame:
    found, cleared = shares["sensitivity"], shares["specificity"]
    return pd.DataFrame(
        {
            "": [f"truly {names[1]}", f"truly {names[0]}"],
            f"called {names[1]}": [found.hits, cleared.n - cleared.hits],
            f"called {names[0]}": [found.n - found.hits, cleared.hits],
        }
    )


def _by_specificity(predictions: Predictions) -> Section:
    rows = []
    for wanted in _SPECIFICITIES:
        share, threshold = sensitivity_at_specificity(predictions, wanted)
        rows.append(
            {
                "specificity at least": wanted,
                "sensitivity": share.value,
                "95 % from": share.low,
                "to": share.high,
                "threshold": threshold,
            }
        )
    return Section(
        "",
        pd.DataFrame(rows),
        text="Sensitivity at a given specificity, read off this split's own ROC curve: the "
        "thresholds are for comparing networks, not for use.",
        formats={**_FORMATS, "specificity at least": ".0%", "threshold": ".4f"},
    )


def _figures(
    predictions: Predictions,
    areas: dict[str, float],
    shares: dict[str, Share],
    prevalence: float,
    folder: Path,
) -> list[Section]:
    found, cleared, right = shares["sensitivity"], shares["specificity"], shares["ppv"]
    at_roc: list[Point] = [(1 - cleared.value, found.value, "threshold")]
    at_pr: list[Point] = [(found.value, right.value, "threshold")] if right.n else []
    roc, precision_recall = folder / "roc.png", folder / "precision_recall.png"
    plot_roc(roc_curve(predictions), areas["auroc"], roc, at_roc)
    plot_precision_recall(
        precision_recall_curve(predictions),
        areas["average_precision"],
        prevalence,
        precision_recall,
        at_pr,
    )
    return [
        Section("", figure=roc),
        Section(
            "",
            figure=precision_recall,
            text=f"The dashed line is guessing: {prevalence:.1%} of the samples are positive.",
        ),
    ]
