"""Whether images that a network is judged on were also in what it was trained on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from fovea import console
from fovea.data import ImageDataModule
from fovea.data.duplicates import DuplicateFinder, Duplicates
from fovea.data.splits import Split
from fovea.data.views import whole_view
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.duplicates import effect_of_duplicates, plot_pairs
from fovea.evaluation.sections import Section
from fovea.evaluation.tables import write_csv
from fovea.experiment import build_data
from fovea.inference import read_checkpoint
from fovea.judging.candidates import Candidate

log = logging.getLogger("fovea")

_TABLE, _SHEET = "duplicates.csv", "duplicates.png"

_CAVEAT = (
    "Found are copies that were re-encoded, resized, brightened, turned to grey, mirrored or "
    "slightly cropped; not other photographs of the same scene. Look at the sheet before you "
    "believe it: drawings, writing and small images may resemble each other as much."
)


class Images(NamedTuple):
    """A split by name, and the data set it is of."""

    data: ImageDataModule
    name: str

    @property
    def split(self) -> Split:
        """The images and their labels."""
        return self.data.splits[self.name]

    @property
    def fingerprint(self) -> str:
        """Which images they are, under which labels."""
        return self.data.split_fingerprints()[self.name]

    def image(self, index: int) -> Tensor:
        """Return the whole image of a sample, (3, h, w) uint8."""
        number = int(self.split.numbers[index])
        return whole_view(self.split.source.open(number, 3))


def training_images(candidate: Candidate) -> Images:
    """Return what the network of ``candidate`` was trained on.

    Published weights are taken to be trained on the data set's own train split.

    Raises:
        FoveaError: the split that is judged is that one, or its images are not there.
    """
    split, data = candidate.config.split, candidate.data
    if split == "train":
        raise FoveaError(
            "duplicates=true looks for images of a split that are in train, too: split=test or "
            "split=val."
        )
    if candidate.reference is not None:
        checkpoint = read_checkpoint(candidate.reference)
        if checkpoint.splits.get("train") != data.split_fingerprints().get("train"):
            try:
                data = build_data(checkpoint.config, checkpoint.preprocessing)
            except FoveaError as error:
                raise FoveaError(
                    "duplicates=true needs the images that the network was trained on, and they "
                    f"are not there: {error}"
                ) from error
    if "train" not in data.splits:
        raise FoveaError(
            f"duplicates=true needs a train split, and {data.found.layout} has none. Leave it out."
        )
    return Images(data, "train")


Known = dict[tuple[str, str], Duplicates]
"""What was found already, by the fingerprints of both splits."""


def find_duplicates(judged: Images, trained: Images, known: Known) -> Duplicates:
    """Return which judged images are in train, too: from ``known``, else found and put there."""
    both = judged.fingerprint, trained.fingerprint
    if both not in known:
        finder = DuplicateFinder(judged.data.loader_processes(), judged.data.decode)
        known[both] = finder.find(judged.split, trained.split)
    return known[both]


def report_duplicates(
    predictions: Predictions, judged: Images, trained: Images, folder: Path, known: Known
) -> tuple[Predictions, Section]:
    """Find the judged images that are in train, too; warn, and write a table and a sheet of them.

    Args:
        predictions: on the judged images.
        judged: the split.
        trained: on what.
        folder: gets duplicates.csv and duplicates.png.
        known: see `find_duplicates`.

    Returns:
        the predictions, with the number of duplicates and the score without them noted, and a
        section for the report.
    """
    found = find_duplicates(judged, trained, known)
    table = duplicates_table(found, judged, trained)
    effect = effect_of_duplicates(predictions, [item.index for item in found.found])
    text = " ".join(filter(None, [effect.sentence(judged.name), found.left_out()]))
    if effect.duplicates:
        log.warning("WARNING: %s See %s.", text, console.shorten(folder / _SHEET))
    elif found.left_out():
        log.warning("WARNING: %s", text)
    else:
        log.info(text)
    figure = write_duplicates(
        table, pictures(found, judged, trained), folder, effect.sentence(judged.name)
    )
    section = Section(
        "Near-duplicates in train",
        text=f"{text}\n\n{_CAVEAT}",
        table=table.drop(columns=["split", "twin_split"]) if len(table) else None,
        figure=figure,
        file=_TABLE,
    )
    metrics = dict(predictions.about["metrics"])
    if effect.duplicates and effect.top1_without is not None:
        metrics[f"{judged.name}/top1_without_duplicates"] = effect.top1_without
    about = {**predictions.about, "metrics": metrics, "duplicates": effect.duplicates}
    return dataclasses.replace(predictions, about=about), section


def duplicates_table(found: Duplicates, first: Images, second: Images) -> pd.DataFrame:
    """Return a row a `Duplicate`: both paths, labels by name and splits, and how alike they are."""
    rows = [
        {
            **_names(first, item.index, ""),
            **_names(second, item.twin, "twin_"),
            "distance": item.distance,
            "similarity": round(item.similarity, 4),
            "mirrored": item.mirrored,
            "copies": item.copies,
        }
        for item in found.found
    ]
    names = ("path", "label", "split", "twin_path", "twin_label", "twin_split")
    return pd.DataFrame(rows, columns=[*names, "distance", "similarity", "mirrored", "copies"])


def _names(images: Images, index: int, prefix: str) -> dict[str, str]:
    split = images.split
    return {
        f"{prefix}path": split.source.path(int(split.numbers[index])),
        f"{prefix}label": images.data.class_names[int(split.labels[index])],
        f"{prefix}split": images.name,
    }


def pictures(
    found: Duplicates, first: Images, second: Images
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return what gives the two images of a pair by its row."""

    def images_of(row: int) -> tuple[Tensor, Tensor]:
        item = found.found[row]
        return first.image(item.index), second.image(item.twin)

    return images_of


def write_duplicates(
    table: pd.DataFrame,
    images_of: Callable[[int], tuple[Tensor, Tensor]],
    folder: Path,
    title: str,
) -> Path | None:
    """Write duplicates.csv and, where there are any, duplicates.png; return the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, folder / _TABLE)
    (folder / _SHEET).unlink(missing_ok=True)  # of an earlier search
    if not len(table):
        return None
    plot_pairs(table, images_of, folder / _SHEET, title)
    return folder / _SHEET
