"""What summary.json says of the metrics of a run, and of each model of an evaluation of several."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fovea.runs.metrics import Digest


def scores_of(curves: Digest | None, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> value of all metrics.

    Of the validation metrics those of the best row, since a summary may hold the last ones.

    Args:
        curves: of metrics.csv; None: there is none.
        summary: of the run.
    """
    named = _metrics(summary)
    if curves is None:
        return named
    at_best = {k: v for k, v in curves.metrics.items() if k.startswith("val/")}
    best = at_best if curves.best is not None else {}
    return {**curves.metrics, **named, **best, **curves.last}


def models_of(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what an evaluation of several models says of each, empty for any other run.

    Of each: ``name`` (of its folder below the evaluation's), ``ckpt``, ``state``, ``error`` and its
    metrics.
    """
    found = summary.get("models")
    models = found if isinstance(found, list) else []
    return [
        {
            **{name: value for name, value in _metrics(model).items() if "/" in name},
            "name": model["name"],
            **{key: None if model.get(key) is None else str(model[key]) for key in _WORDS},
        }
        for model in models
        if isinstance(model, dict) and _is_name(model.get("name"))
    ]


_WORDS = ("ckpt", "state", "error")


def _is_name(value: Any) -> bool:
    """Return whether ``value`` leads to a folder below, and nowhere else."""
    inside = isinstance(value, str) and value not in ("", ".", "..")
    return inside and value == os.path.basename(value)


def _metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    scores = found.get("metrics")
    plain = scores if isinstance(scores, dict) else {}
    return {str(k): v for k, v in plain.items() if not isinstance(v, dict | list)}
