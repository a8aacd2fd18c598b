"""How many images a run would see: from the data where they are, else as the set is published."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

from fovea.data import CIFARDataModule, ImageDataModule, ImageNetDataModule
from fovea.data.sources import FileSource

IMAGENET_TRAIN = 1_281_167
IMAGENET_VAL = 50_000
IMAGENET_FILE = 147_897_477_120 / IMAGENET_TRAIN
"""Bytes of an image: ILSVRC2012_img_train.tar over its images."""

CIFAR_TRAIN = 50_000

_LOOKED_AT = 200


@dataclass(frozen=True)
class Sizes:
    """What there is to learn from.

    Attributes:
        train: images, after cuts and subsets.
        val: images.
        class_names: in label order.
        class_counts: training images of each class.
        file_bytes: of an image in storage, the mean; None where it is not known.
        source: of these numbers.
    """

    train: int
    val: int
    class_names: list[str]
    class_counts: list[int]
    file_bytes: float | None
    source: str


def find_sizes(data: ImageDataModule) -> Sizes:
    """Return the sizes of ``data``, which need not be there if it is ImageNet or CIFAR.

    Raises:
        FoveaError: another data set that is not there.
    """
    root = getattr(data, "root", None)
    absent = isinstance(root, Path) and not root.is_dir()
    if absent and isinstance(data, ImageNetDataModule):
        return _published(data, 1000, IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_FILE)
    if absent and isinstance(data, CIFARDataModule):
        return _published(data, data._variant, CIFAR_TRAIN, 0, None)
    sizes = data.split_sizes
    return Sizes(
        sizes["train"],
        sizes.get("val", 0),
        data.class_names,
        data.class_counts("train"),
        _file_bytes(data),
        data.found.layout,
    )


def _published(
    data: ImageDataModule, classes: int, train: int, val: int, file_bytes: float | None
) -> Sizes:
    """Return the sizes after the cuts that `Cutting` and `subset` would make, to a few images."""
    if not val or getattr(data, "official_val", "val") == "test":
        val = round(data.cutting.val_fraction * train)
        train -= val
    if data.chosen_classes is not None:
        train, val = (n * len(data.chosen_classes) // classes for n in (train, val))
        classes = len(data.chosen_classes)
    each = [train // classes + (label < train % classes) for label in range(classes)]
    each = [max(1, round(count * data.fraction)) for count in each]
    if data.limit_per_class is not None:
        each = [min(count, data.limit_per_class) for count in each]
    names = [str(label) for label in range(classes)]
    source = f"as published; nothing is in {getattr(data, 'root', '')}"
    total = sum(each) if data.limit_per_class is not None else round(train * data.fraction)
    return Sizes(total, val, names, each, file_bytes, source)


def _file_bytes(data: ImageDataModule) -> float | None:
    """Return the mean size of some training files, spread evenly."""
    split = data.splits["train"]
    if not isinstance(split.source, FileSource):
        return None
    numbers = split.numbers[:: max(1, len(split) // _LOOKED_AT)].tolist()
    return statistics.fmean(os.path.getsize(split.source.path(number)) for number in numbers)
