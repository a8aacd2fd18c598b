"""Everything worth knowing about one evaluation: pages for people, tables for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from fovea.errors import FoveaError
from fovea.evaluation.binary_part import binary_part
from fovea.evaluation.confidence_parts import calibration_part, selective_part
from fovea.evaluation.confusion import matrix_order
from fovea.evaluation.confusions import count_confusions
from fovea.evaluation.findings import usable_val, warnings_of
from fovea.evaluation.predictions import Predictions
from fovea.evaluation.report_parts import (
    class_part,
    confusion_part,
    headline,
    origin,
    picture_part,
)
from fovea.evaluation.scores import per_class_table, score_intervals, summarize
from fovea.evaluation.sections import Part, Section, write_pages
from fovea.evaluation.tables import predictions_table, write_csv

_FIGURES = (
    "classes",
    "confusion_matrix",
    "reliability",
    "accuracy_by_confidence",
    "roc",
    "precision_recall",
    "mistakes",
    "least_sure_hits",
)


def write_report(
    folder: Path | str,
    predictions: Predictions,
    *,
    val: Predictions | None = None,
    images_of: Callable[[int], Tensor] | None = None,
    metrics: Mapping[str, float] | None = None,
    cost: Mapping[str, Any] | None = None,
    count: int = 25,
    sections: Sequence[Section] = (),
) -> dict[str, Path]:
    """Write report.html, report.md, metrics.json, per_class.csv, predictions.csv and the figures.

    Whatever the predictions are like there is a report: what limits it is said on top of the page.

    Args:
        folder: made if absent; files of an earlier report in it are replaced or removed.
        predictions: of N >= 1 samples. All of ``about`` is shown; ``unreadable`` (files that are
            left out) and ``duplicates`` (images with a near-duplicate in train), numbers or lists,
            become warnings.
        val: of the val split by the same network: temperature and threshold are fitted on it.
            None, or predictions of the very split that is reported: neither is fitted.
        images_of: gives the (C, h, w) uint8 image of a sample by its index; None for no pictures.
        metrics: added to metrics.json, such as ``{"test/loss": 0.1}`` as the task logged it.
        cost: name to number or text (``parameters``, ``images_per_second``), shown as a table.
        count: how many pictures a sheet has at most.
        sections: what else belongs into the report, at its end.

    Returns:
        the files by name: ``report``, ``report_markdown``, ``metrics``, ``per_class``,
        ``predictions``, and the figures by theirs.

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
    figures = {name: folder / f"{name}.png" for name in _FIGURES}
    for figure in figures.values():  # of an earlier report, which may have had more
        figure.unlink(missing_ok=True)
    order = matrix_order(count_confusions(predictions))
    classes = per_class_table(predictions).assign(confusion_place=np.argsort(order))
    val, without = usable_val(val, predictions)
    parts = _parts(folder, predictions, classes, order, val, without, cost)
    if images_of is not None:
        parts.append(picture_part(predictions, images_of, count, folder))
    warnings = warnings_of(predictions, without, pictures=images_of is not None)
    own = [section for part in parts for section in part.sections]
    files = write_pages(folder, _title(predictions), [*own, *sections], warnings)
    numbers = [*(part.numbers for part in parts), metrics or {}, {"warnings": warnings}]
    files["metrics"] = _write_numbers(folder / "metrics.json", numbers)
    files["per_class"] = write_csv(classes, folder / "per_class.csv")
    table = predictions_table(predictions)
    files["predictions"] = write_csv(table, folder / "predictions.csv")
    return files | {name: figure for name, figure in figures.items() if figure.is_file()}


def _parts(
    folder: Path,
    predictions: Predictions,
    classes: pd.DataFrame,
    order: NDArray[np.int64],
    val: Predictions | None,
    without: str,
    cost: Mapping[str, Any] | None,
) -> list[Part]:
    """Return the parts that need no images, in the order of reading."""
    scores = summarize(predictions)
    parts = [
        headline(predictions, scores, score_intervals(predictions)),
        origin(predictions, cost),
        class_part(classes, scores["top1"], folder),
        confusion_part(predictions, order, folder),
        calibration_part(predictions, val, without, folder),
        selective_part(predictions, folder),
    ]
    if predictions.num_classes == 2:
        parts.append(binary_part(predictions, val, without, folder))
    return parts


def _title(predictions: Predictions) -> str:
    """Return the heading: which checkpoint or run, on which split."""
    about = predictions.about
    what = str(about.get("run") or about.get("ckpt") or "Evaluation")
    return f"{what} on {about['split']}" if "split" in about else what


def _write_numbers(path: Path, numbers: Sequence[Mapping[str, Any]]) -> Path:
    """Write all ``numbers`` as one JSON object; what is no finite number is null."""
    together = {name: value for some in numbers for name, value in some.items()}
    path.write_text(json.dumps(_jsonable(together), indent=2) + "\n", encoding="utf-8")
    return path


def _jsonable(value: Any) -> Any:
    """Return ``value`` in types of JSON: numpy's numbers as Python's, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
