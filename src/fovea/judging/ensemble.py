"""Several networks as one: the mean of their probabilities; and the scores of any predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from fovea.errors import FoveaError
from fovea.evaluation import ClassificationMetrics, Predictions


def average(members: Iterable[Predictions], about: Mapping[str, Any] | None = None) -> Predictions:
    """Return the mean of the members' probabilities (not of their logits), as log-probabilities.

    One member is held in memory at a time beside the sum.

    Args:
        members: at least one, of the same samples and classes in the same order.
        about: joins what the first member says about itself.

    Raises:
        FoveaError: the members' samples, labels or classes differ.
    """
    first: Predictions | None = None
    count = 0
    for member in members:
        own = member.logits.log_softmax(dim=1)
        if first is None:
            first, total = member, own
        else:
            _check_same(first, member)
            total = torch.logaddexp(total, own)
        count += 1
    if first is None:
        raise FoveaError("There are no predictions to take the mean of.")
    whose = {key: first.about.get(key) for key in ("split", "data", "fingerprint", "views")}
    merged = dataclasses.replace(
        first,
        logits=total - torch.tensor(float(count)).log(),
        about={**whose, **(about or {})},
    )
    merged.about["metrics"] = scores(merged, str(whose["split"]))
    return merged


def _check_same(first: Predictions, other: Predictions) -> None:
    """Raise `FoveaError` unless both are of the same samples and classes."""
    kinds = {
        "classes": first.class_names == other.class_names
        and first.num_classes == other.num_classes,
        "images": first.about.get("fingerprint") == other.about.get("fingerprint")
        and torch.equal(first.indices, other.indices),
        "labels": torch.equal(first.labels, other.labels),
    }
    differing = [kind for kind, same in kinds.items() if not same]
    if differing:
        names = " and ".join(str(p.about.get("ckpt")) for p in (first, other))
        raise FoveaError(
            f"The predictions of {names} are not of the same {' and '.join(differing)}, so they "
            "have no mean. Evaluate both on one data set: ckpt=[…] data=… ensemble=true"
        )


def scores(predictions: Predictions, split: str) -> dict[str, float]:
    """Return ``split/top1``, ``top5``, ``loss`` and ``balanced_accuracy`` as a task logs them.

    The loss is the cross-entropy of the probabilities.
    """
    metrics = ClassificationMetrics(predictions.num_classes, f"{split}/", sync_on_compute=False)
    losses = cross_entropy(predictions.logits, predictions.labels, reduction="none")
    metrics.update(predictions.logits, predictions.labels, predictions.indices, losses)
    return {name: float(score) for name, score in metrics.compute().items()}
