"""What else is judged: images under corruption, and labels of which several may be right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fovea.data import (
    Corruption,
    ImageDataModule,
    StoredCorruptionsDataModule,
    chosen_corruptions,
    imagenet_classes,
    read_real_labels,
    real_labels_of,
)
from fovea.data.corruptions import GROUPS
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.corruption_error import CLEAN, measured_row
from fovea.evaluation.corruption_report import write_corruptions
from fovea.evaluation.real_accuracy import real_accuracy
from fovea.evaluation.sections import Section

log = logging.getLogger("fovea")

TABLE = "corruptions_by_severity.csv"

_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def plan_corruptions(
    data: ImageDataModule, corruptions: str | Sequence[str] | None, severities: Sequence[int]
) -> list[Corruption]:
    """Return what is to be evaluated beside the data as they are, in the paper's order.

    Args:
        data: that were distributed in corrupted versions, or are to be corrupted on the fly.
        corruptions: names and groups, or ``all``. None: nothing, or, of a data set of versions of
            which none was chosen, those that are there.
        severities: of 1 to 5.

    Raises:
        FoveaError: an unknown name; what is not there, or can't be made here.
    """
    names = chosen_corruptions("all" if corruptions is None else corruptions)
    plan = [Corruption(name, severity) for name in names for severity in sorted(set(severities))]
    if not isinstance(data, StoredCorruptionsDataModule):
        if corruptions is None:
            return []
        for corruption in plan:
            corruption.check()
        return plan
    if corruptions is None and data.chosen:
        return []
    there = data.versions()
    lacking = [version for version in plan if version not in there]
    if lacking and corruptions is not None:
        raise FoveaError(
            f"{data.title} in {data.root} has no {lacking[0]}. Leave corruptions= out to evaluate "
            "what is there, or copy what is missing to its place."
        )
    return [version for version in plan if version in there]


def measure_corruptions(
    data: ImageDataModule,
    plan: Sequence[Corruption],
    predict: Callable[[], Predictions | None],
    model: str,
    seen: Predictions | None,
) -> pd.DataFrame | None:
    """Return a row for each corruption, see `corruption_table`; None on ranks other than 0.

    None as well where there is nothing to measure.

    Every rank has to call this.

    Args:
        data: see `plan_corruptions`.
        plan: in which order.
        predict: has the network predict the split of ``data`` as they then are, on every rank.
        model: name of the rows.
        seen: what it said of the data as they are; None on the other ranks.
    """
    stored = isinstance(data, StoredCorruptionsDataModule)
    shown = data.version if isinstance(data, StoredCorruptionsDataModule) else None
    rows: list[dict[str, Any]] = []
    if seen is not None and not stored:
        rows.append(measured_row(seen, model, CLEAN, CLEAN, 0))
    for number, corruption in enumerate(plan, start=1):
        found = seen
        if corruption != shown:
            with data.corrupting(corruption):
                found = predict()
        if found is None:
            continue
        group = _GROUP_OF[corruption.name]
        rows.append(measured_row(found, model, group, corruption.name, corruption.severity))
        words = (number, len(plan), corruption, rows[-1]["top1"])
        log.info("  corruption %d/%d  %s: top1 %.4f", *words)
    if seen is None or not plan:
        return None
    return pd.DataFrame(rows).assign(imagenet=is_imagenet(data), made_here=not stored)


def is_imagenet(data: ImageDataModule) -> bool:
    """Return whether the classes of ``data`` are the 1000 of ImageNet-1k."""
    return set(data.class_names) == set(imagenet_classes().values())


def gather_corruptions(folder: Path, names: Sequence[str]) -> list[Section]:
    """Return the sections on the corruptions of several models, whose files are written.

    Args:
        folder: of all models; that of each lies in it.
        names: of the models. One that was not judged under corruption is left out.
    """
    files = {name: folder / name / TABLE for name in names}
    tables = [pd.read_csv(f).assign(model=name) for name, f in files.items() if f.is_file()]
    return write_corruptions(folder, pd.concat(tables, ignore_index=True)) if tables else []


RightClasses = list[Collection[int]]


def find_real_labels(
    data: ImageDataModule, split: str, real_labels: bool | str | None
) -> RightClasses | None:
    """Return the ReaL labels of each sample of ``split``, numbered as ``data`` number the classes.

    Args:
        data: ImageNet's validation images.
        split: whose.
        real_labels: true: those that timm ships; or the path of ``real.json``; or none.

    Raises:
        FoveaError: images or classes that are not ImageNet's, a file that is not as it should be.
    """
    if real_labels is None or real_labels is False:
        return None
    known, names = imagenet_classes(), data.class_names
    strange = [name for name in names if name not in known.values()]
    if strange:
        raise FoveaError(
            f"real_labels are of ImageNet's classes; the data ({data.found.layout}) have others, "
            f"such as {strange[0]}. Leave real_labels= out, or take data=imagenet split=val."
        )
    labels = read_real_labels(None if real_labels is True else real_labels)
    dataset = data.dataset(split)
    paths = [dataset.path(index) for index in range(len(dataset))]
    # Classes that the data lack keep a number that no prediction has: such an image counts.
    numbers = {name: number for number, name in enumerate(names)}
    own = [numbers.get(name, -1) for name in known.values()]
    return [{own[label] for label in right} for right in real_labels_of(paths, labels)]


def score_real_labels(predictions: Predictions, right: RightClasses | None) -> dict[str, float]:
    """Return the scores with ReaL labels by ``split/name``; none where ``right`` is None."""
    if right is None:
        return {}
    chosen = [right[index] for index in predictions.indices.tolist()]
    scores = real_accuracy(predictions, chosen)
    return {f"{predictions.about['split']}/{name}": value for name, value in scores.items()}
