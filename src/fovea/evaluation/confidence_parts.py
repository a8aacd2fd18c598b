"""The parts of a report on confidence: calibration, and accuracy among the surest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fovea.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    max_calibration_error,
    reliability,
    with_temperature,
)
from fovea.evaluation.confidence_plots import plot_reliability, plot_selective
from fovea.evaluation.predictions import Predictions
from fovea.evaluation.scores import proper_scores
from fovea.evaluation.sections import Part, Section
from fovea.evaluation.selective import accuracy_at_coverage, coverage_curve

_COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
_SHARES = ("calibration error", "adaptive calibration error", "max calibration error")
_POINTS = 2000
"""Of a curve that are drawn; more could not be told apart."""


def calibration_part(
    predictions: Predictions, val: Predictions | None, without: str, folder: Path
) -> Part:
    """Return calibration as trained and, if one can be fitted on ``val``, with a temperature.

    Args:
        predictions: of N >= 1 samples.
        val: of another split, by the same network.
        without: said if there is no ``val``: why.
        folder: where the figure goes.
    """
    states, text, numbers = {"as trained": predictions}, without, dict[str, Any]()
    temperature = None if val is None else fit_temperature(val)
    if val is not None and temperature is None:
        text = (
            "No temperature was fitted: on val none is the best. Either all its samples are right, "
            "and the smaller the better, or the network is no better than chance there."
        )
    if temperature is not None:
        states[f"temperature {temperature:.3g}"] = with_temperature(predictions, temperature)
        text = (
            f"The temperature that fits val best is {temperature:.4f}. Dividing all logits by it "
            "changes no prediction, only how sure it is; above 1, the network was too sure."
        )
        numbers["temperature"] = temperature
    bins = {name: reliability(state) for name, state in states.items()}
    rows = {name: _calibration(state, bins[name]) for name, state in states.items()}
    if temperature is not None:
        numbers["calibrated"] = list(rows.values())[1]
    titles = [f"{name}: ECE {rows[name]['calibration_error']:.2%}" for name in rows]
    figure = folder / "reliability.png"
    plot_reliability(dict(zip(titles, bins.values(), strict=True)), figure)
    section = Section(
        "Calibration",
        _table(rows),
        figure,
        text="Is the network right as often as it says? Then all bars end on the diagonal; red "
        f"is over-confidence, white hatching caution.\n\n{text}",
        formats={**dict.fromkeys(_SHARES, ".2%"), "nll": ".4f", "brier": ".4f"},
    )
    return Part([section], numbers)


def _table(rows: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Return ``rows`` by their names, which stand in a first column without a head."""
    named = pd.DataFrame.from_dict(rows, orient="index").rename(
        columns=lambda n: n.replace("_", " ")
    )
    return named.rename_axis("").reset_index()


def _calibration(predictions: Predictions, bins: pd.DataFrame) -> dict[str, float]:
    valid = predictions.valid.numpy()
    nll, brier = (values[valid] for values in proper_scores(predictions))
    return {
        "calibration_error": calibration_error(bins),
        "adaptive_calibration_error": calibration_error(reliability(predictions, adaptive=True)),
        "max_calibration_error": max_calibration_error(bins),
        "nll": float(nll.mean()) if len(nll) else float("nan"),
        "brier": float(brier.mean()) if len(brier) else float("nan"),
    }


def selective_part(predictions: Predictions, folder: Path) -> Part:
    """Return the accuracy among the most confident samples, for a few shares and as a curve."""
    curve = coverage_curve(predictions)
    rows = []
    for coverage in _COVERAGES:
        reached = curve[curve["coverage"] >= coverage - 1e-9].iloc[0]
        accuracy = accuracy_at_coverage(predictions, coverage)
        rows.append({"coverage": coverage, "accuracy": accuracy, "threshold": reached["threshold"]})
    marked = pd.DataFrame(rows)
    figure = folder / "accuracy_by_confidence.png"
    drawn = np.unique(np.linspace(0, len(curve) - 1, _POINTS).round().astype(int))
    plot_selective(curve.iloc[drawn], marked, figure)
    section = Section(
        "Accuracy by confidence",
        marked,
        figure,
        text="If only the most confident share of the samples is answered and the others are left "
        "to somebody else: how often is the network right? The threshold is the confidence from "
        "which on it answers.",
        formats={"coverage": ".0%", "accuracy": ".2%", "threshold": ".4f"},
    )
    return Part([section], {"accuracy_at_coverage": rows})
