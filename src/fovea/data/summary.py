"""A data module in a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fovea.types import Preprocessing

if TYPE_CHECKING:
    from fovea.data.module import ImageDataModule


def describe_rows(data: ImageDataModule) -> list[tuple[str, str]]:
    """Return (what, value) rows for the summary at the start of a run."""
    preprocessing = data.preprocessing
    rows = [("data", f"{data.found.layout}; {data.num_classes} classes: {_names(data)}")]
    rows += [(name, _split_line(data, name)) for name in data.splits]
    rows += [
        ("train images", data.augment.describe(preprocessing.image_size, data.hflip)),
        ("eval images", _eval_line(preprocessing)),
        (
            "normalised by",
            f"mean {_numbers(preprocessing.mean)}, std {_numbers(preprocessing.std)}",
        ),
        ("workers", str(data.loader_processes())),
    ]
    if data.sampling != "shuffle" or data.repeats > 1:
        rows.append(("sampling", f"{data.sampling}, each sample {data.repeats}x in a row"))
    return rows


def _names(data: ImageDataModule, most: int = 6) -> str:
    names = data.class_names
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])}, ... {names[-1]}"


def _split_line(data: ImageDataModule, name: str) -> str:
    counts = data.class_counts(name)
    low, high = min(counts), max(counts)
    each = f"{low}" if low == high else f"{low}-{high}"
    line = f"{sum(counts):,} images, {each} a class"
    record = data.splits_recorded[name]
    if "cut_from" in record:
        line += f" (cut from {record['cut_from']}, split_seed {record['split_seed']})"
    elif "split_seed" in record:
        line += " (a part of all)"
    return line


def _eval_line(preprocessing: Preprocessing) -> str:
    channels, size, _ = preprocessing.image_shape
    how = "whole image" if preprocessing.resize is None else f"resize {preprocessing.resize}"
    colour = "grey" if channels == 1 else "RGB"
    return f"{how}, centre {size}x{size} {colour}, {preprocessing.interpolation}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
