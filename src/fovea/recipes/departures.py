"""How what is built differs from what a recipe's document (`expected`) says of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Built:
    """What a run is made of, as far as a document speaks of it.

    Attributes:
        epochs: of the run.
        global_batch: images of an optimiser step.
        train_size: largest side of training images in pixels.
        eval_size: side of evaluation images in pixels.
        eval_resize: what their shorter side is resized to; None: no crop.
        classes: K.
        train_images: in the split, of which an epoch may see a part.
        parameters: of backbone and head.
        weights: what it begins from; None: random.
        in_shards: images come from shards, as `fovea.recipes.changed` leaves out.
    """

    epochs: int
    global_batch: int
    train_size: int
    eval_size: int
    eval_resize: int | None
    classes: int
    train_images: int
    parameters: int
    weights: str | None
    in_shards: bool = False


_NAMES = {
    "epochs": "epochs",
    "global_batch": "global batch",
    "train_size": "pixels in training",
    "eval_size": "pixels in evaluation",
    "eval_resize": "pixels of the shorter side in evaluation",
    "classes": "classes",
    "train_images": "training images",
    "parameters": "parameters",
}


def of_variant(expected: Mapping[str, Any], epochs: int) -> Mapping[str, Any]:
    """Return ``expected``, with what its variant of so many ``epochs`` says in its place."""
    for variant in (expected["variants"] or {}).values():
        if variant["epochs"] == epochs:
            return {**expected, **variant}
    return expected


def departures(expected: Mapping[str, Any], built: Built) -> list[str]:
    """Return a line for each fact in which ``built`` is not what the document says.

    The rate, decay and so on are no facts of the document: see `fovea.recipes.changed`.
    """
    said = of_variant(expected, built.epochs)
    lines = []
    for key, name in _NAMES.items():
        ours, theirs = getattr(built, key), said[key]
        if ours != theirs:
            lines.append(f"{name}: {_number(ours)}, the document has {_number(theirs)}")
    if (built.weights is None) != (said["weights"] is None):
        lines.append(
            f"begins from {built.weights or 'random weights'}, the document from "
            f"{said['weights'] or 'random weights'}"
        )
    return lines


def unlike_variant(
    expected: Mapping[str, Any], epochs: int, setting: Callable[[str], Any]
) -> list[str]:
    """Return a line for each setting of the variant of so many ``epochs`` that a run lacks.

    Args:
        expected: the document.
        epochs: of the run.
        setting: key -> its value in the run.
    """
    lines = []
    for word in of_variant(expected, epochs).get("overrides", ()):
        key, _, value = word.partition("=")
        if setting(key) != yaml.safe_load(value):
            lines.append(f"{key}: {setting(key)}, the document has {value} for {epochs} epochs")
    return lines


def batch_of_a_device(expected: Mapping[str, Any], device_batch: int) -> str | None:
    """Return a word on the batch that BatchNorm sees, where it is not the document's.

    Args:
        expected: the document.
        device_batch: images of a micro-batch on one device.
    """
    if expected["devices"] is None:
        return None
    theirs = expected["global_batch"] // expected["devices"]
    if theirs == device_batch:
        return None
    devices = f"{expected['devices']} device" + "s" * (expected["devices"] > 1)
    return (
        f"BatchNorm sees {device_batch} images at a time, the document's {theirs} ({devices}): "
        "its statistics are others, also where the global batch is the same"
    )


def document_rows(
    expected: Mapping[str, Any], built: Built, device_batch: int | None
) -> list[tuple[str, str]]:
    """Return rows (what, how) for the summary at the start of a run.

    Args:
        expected: the document.
        built: what the run is made of.
        device_batch: images of a micro-batch on one device; None: the network has no BatchNorm.
    """
    said = of_variant(expected, built.epochs)
    rows = [("document", f"{results_in_words(said['results'])} ({said['source']})")]
    rows += [("differs", line) for line in departures(expected, built)]
    if built.weights is not None and said["weights"] is not None:
        rows.append(("weights of it", f"{said['weights']}: whether those are them isn't checked"))
    if built.in_shards:
        rows.append(("stored", "images are in shards, and count as the document's by their number"))
    note = None if device_batch is None else batch_of_a_device(expected, device_batch)
    return rows if note is None else [*rows, ("differs", note)]


def results_in_words(results: Sequence[Mapping[str, Any]]) -> str:
    """Return ``val/top1 0.7613, val/top5 0.9286``, with the spread where it is known."""
    return ", ".join(
        f"{r['metric']} {r['value']:.4f}" + (f" +- {r['spread']:.4f}" if r["spread"] else "")
        for r in results
    )


def _number(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"
