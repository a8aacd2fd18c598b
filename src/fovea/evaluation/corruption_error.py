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
    Otherwise the columns hold the mean errors over the severities, and ``mean_error`` their mean.
    ``clean_error`` is left out where no clean images were seen.

    Args:
        measured: long table, with the column ``imagenet``: whether the images are of its 1000
            classes.

    Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1.
    """
    corrupted = measured[measured["corruption"] != CLEAN]
    order = list(dict.fromkeys(corrupted["corruption"]))
    models = list(dict.fromkeys(measured["model"]))
    errors = corrupted.pivot_table("error", "model", "corruption").loc[models, order]
    relative = is_relative(measured)
    if relative:
        errors = errors / pd.Series(ALEXNET_ERRORS)[order]
    complete = relative and set(order) == set(ALEXNET_ERRORS)
    summary = "mce" if complete else "mean_ce" if relative else "mean_error"
    errors.insert(0, summary, errors[order].mean(axis=1))
    clean = measured[measured["corruption"] == CLEAN].set_index("model")["error"]
    if len(clean):
        errors.insert(0, "clean_error", clean)
    return errors.rename_axis(columns=None).reset_index()


def is_relative(measured: pd.DataFrame) -> bool:
    """Return whether errors may be divided by AlexNet's, which are means of five severities."""
    severities = set(measured.loc[measured["corruption"] != CLEAN, "severity"])
    return bool(measured["imagenet"].all()) and severities == set(SEVERITIES)
