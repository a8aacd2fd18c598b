"""How many images and classes a run had, as its summary records it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fovea.runs.record import read_mapping


def read_summary(folder: str) -> dict[str, Any]:
    """Return summary.json of a run, empty where it can't be read: that is told already."""
    try:
        return read_mapping((Path(folder) / "summary.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}


def count_of(summary: Mapping[str, Any], split: str) -> int | None:
    """Return how many images ``split`` had, None where that is not recorded."""
    splits = summary.get("splits")
    entry = splits.get(split) if isinstance(splits, Mapping) else None
    count = entry.get("count") if isinstance(entry, Mapping) else None
    return count if isinstance(count, int) else None


def other_data(document: Mapping[str, Any], summary: Mapping[str, Any], stored: bool) -> list[str]:
    """Return a line for each number in which the data of a run are not the document's.

    Args:
        document: of the recipe.
        summary: of the run.
        stored: the images are in shards, so that they have to be known by their number.
    """
    counts = {"training images": count_of(summary, "train"), "classes": summary.get("classes")}
    said = {"training images": document["train_images"], "classes": document["classes"]}
    if stored and None in counts.values():
        return ["images stored otherwise: in shards, and how many is not recorded"]
    return [
        f"{count:,} {what} (recipe: {said[what]:,})"
        for what, count in counts.items()
        if isinstance(count, int) and count != said[what]
    ]
