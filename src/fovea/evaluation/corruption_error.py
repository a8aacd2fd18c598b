"""Scores under corruption: errors by corruption and severity, and the mean corruption error.

Tables are long: a row a model, corruption and severity, with the columns of `measured_row`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from fovea.evaluation.intervals import wilson
from fovea.evaluation.predictions import Predictions

CLEAN = "clean"
"""Stands for the corruption in the row of images as they are; their severity is 0."""

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Top-1 errors of AlexNet on ImageNet-C, means over the five severities.

Source: the authors' table for computing the mCE (linked from github.com/hendrycks/robustness), to
the digits with which it is used since AugMix (Hendrycks et al. 2020, arXiv 1912.02781).
"""

SEVERITIES = (1, 2, 3, 4, 5)


def measured_row(
    predictions: Predictions, model: str, group: str, corruption: str, severity: int
) -> dict[str, Any]:
    """Return a row: the arguments, ``samples``, ``top1``, ``error``, and bounds of ``top1``.

    Shares in [0, 1]; ``top1_low`` and ``top1_high`` are Wilson's, of 95 %.
    """
    hits, count = int(predictions.correct.sum()), len(predictions)
    low, high = wilson(hits, count)
    return {
        "model": model,
        "group": group,
        "corruption": corruption,
        "severity": severity,
        "samples": count,
        "top1": hits / count if count else float("nan"),
        "error": 1 - hits / count if count else float("nan"),
        "top1_low": low,
        "top1_high": high,
    }


def corruption_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the papers: a row a model, a column a corruption.

    Of ImageNet with all five severities a corruption's column holds its CE, the sum of the errors
    over the severities divided by AlexNet's: CE_c = sum_s E_{s,c} / sum_s E_{s,c}^AlexNet (1 is as
    bad as AlexNet). With all 15 corruptions as well ``mce`` is their mean, else ``mean_ce`` is.
    Otherwise, see `why_not_relative`, the columns hold the mean errors over the severities, and
    ``mean_error`` their mean. ``clean_error`` is left out where no clean images were seen.

    Only what was measured of every model counts, see `shared_rows`.

    Args:
        measured: long table, with the column ``unlike_imagenet_c``: why the images are not as
            those that AlexNet's errors are of; empty where they are.

    Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1.
    """
    corrupted = shared_rows(measured)
    order = list(dict.fromkeys(corrupted["corruption"]))
    models = list(dict.fromkeys(measured["model"]))
    errors = corrupted.pivot_table("error", "model", "corruption").reindex(models)[order]
    relative = not why_not_relative(measured)
    if relative:
        errors = errors / pd.Series(ALEXNET_ERRORS)[order]
    complete = relative and set(order) == set(ALEXNET_ERRORS)
    summary = "mce" if complete else "mean_ce" if relative else "mean_error"
    errors.insert(0, summary, errors[order].mean(axis=1))
    clean = measured[measured["corruption"] == CLEAN].set_index("model")["error"]
    if len(clean):
        errors.insert(0, "clean_error", clean)
    return errors.rename_axis(columns=None).reset_index()


def shared_rows(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of corrupted images whose corruption and severity every model has."""
    corrupted = measured[measured["corruption"] != CLEAN]
    having = corrupted.groupby(["corruption", "severity"])["model"].transform("nunique")
    return corrupted[having == measured["model"].nunique()]


def why_not_relative(measured: pd.DataFrame) -> str:
    """Return why errors are not divided by AlexNet's; empty where they are.

    Those are means over five severities, so each corruption has to have all of them.
    """
    reasons = [reason for reason in measured["unlike_imagenet_c"] if reason]
    if reasons:
        return str(reasons[0])
    severities = shared_rows(measured).groupby("corruption")["severity"].agg(frozenset)
    if severities.nunique() > 1:
        return "severities differ between corruptions"
    if set(severities) != {frozenset(SEVERITIES)}:
        return "those hold for the mean of all five severities"
    return ""


def corruption_scores(measured: pd.DataFrame) -> dict[str, float]:
    """Return what is to be known of one model by name.

    ``mce``, or where there is none ``mean_ce`` or ``mean_corruption_error``, as in
    `corruption_table`; and ``error_<corruption>``, the mean top-1 error over its severities, which
    is never divided.
    """
    row = corruption_table(measured).iloc[0]
    names = {"mce": "mce", "mean_ce": "mean_ce", "mean_error": "mean_corruption_error"}
    scores = {names[key]: float(row[key]) for key in names if key in row}
    corrupted = measured[measured["corruption"] != CLEAN]
    means = corrupted.groupby("corruption", sort=False)["error"].mean()
    return scores | {f"error_{name}": float(error) for name, error in means.items()}
