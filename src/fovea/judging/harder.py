"""What else is judged: images under corruption, and labels of which several may be right."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

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
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.corruption_report import write_corruptions
from fovea.evaluation.real_accuracy import real_accuracy
from fovea.evaluation.sections import Section

TABLE = "corruptions_by_severity.csv"


def plan_corruptions(
    data: ImageDataModule, corruptions: str | Sequence[str] | None, severities: Sequence[int]
) -> list[Corruption]:
    """Return what is to be evaluated beside the data as they are, in the paper's order.

    A data set of versions of which none was chosen shows the first of them from then on.

    Args:
        data: that were distributed in corrupted versions, or are to be corrupted on the fly; with
            their ``views``.
        corruptions: names and groups, or ``all``. None: nothing, or, of a data set of versions of
            which none was chosen, those that are there.
        severities: of 1 to 5.

    Raises:
        FoveaError: an unknown name; what is not there or damaged, or can't be made here.
    """
    names = chosen_corruptions("all" if corruptions is None else corruptions)
    plan = [Corruption(name, severity) for name in names for severity in sorted(set(severities))]
    if not isinstance(data, StoredCorruptionsDataModule):
        if corruptions is None:
            return []
        for corruption in plan:
            data.check_corruption(corruption)
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
    plan = [version for version in plan if version in there]
    data.check_versions(plan)
    if plan and not data.chosen:
        data.show(plan[0])
    return plan


def read_measured(path: Path) -> pd.DataFrame | None:
    """Return the long table in the file ``path``; None if there is none."""
    if not path.is_file():
        return None
    return pd.read_csv(path).fillna({"unlike_imagenet_c": ""})


def kept_corruptions(path: Path, predictions: Predictions) -> pd.DataFrame | None:
    """Return what was measured under corruption along with kept predictions; None if nothing was.

    Args:
        path: of the predictions; the table lies in the folder of the evaluation.
        predictions: what is in it. Only of those that have scores under corruption there is one.
    """
    start = f"{predictions.about['split']}/error_"
    if not any(name.startswith(start) for name in predictions.about.get("metrics", {})):
        return None
    return read_measured(path.parent.parent / TABLE)


def gather_corruptions(folder: Path, names: Sequence[str]) -> list[Section]:
    """Return the sections on the corruptions of several models, whose files are written.

    Args:
        folder: of all models; that of each lies in it.
        names: of the models. One that was not judged under corruption is left out.
    """
    found = {name: read_measured(folder / name / TABLE) for name in names}
    tables = [table.assign(model=name) for name, table in found.items() if table is not None]
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


def real_section(metrics: Mapping[str, float]) -> list[Section]:
    """Return what a report says of the scores with ReaL labels, by ``split/name``, if there are."""
    scores = {name.partition("/")[2]: value for name, value in metrics.items()}
    if "real_top1" not in scores:
        return []
    row = {
        "ReaL top-1": scores["real_top1"],
        "95 % from": scores["real_top1_low"],
        "to": scores["real_top1_high"],
        "images": int(scores["real_samples"]),
    }
    text = (
        "Accuracy with the labels of Beyer et al. 2020, of which several may be right for an "
        "image; images without any are left out."
    )
    shares = dict.fromkeys(("ReaL top-1", "95 % from", "to"), ".2%")
    return [Section("ReaL labels", pd.DataFrame([row]), text=text, formats=shares)]
