"""A data set of some of another one's classes, chosen by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from fovea.data.layout import shortened
from fovea.data.splits import Found
from fovea.errors import FoveaError, did_you_mean


def choose_classes(found: Found, names: Sequence[str | int]) -> Found:
    """Return the images of the classes ``names``, numbered from 0 in the data set's own order.

    Images keep their paths, so that the cuts and draws which go by them are those of the whole set.

    Args:
        found: the whole data set.
        names: as its classes are called, in any order; a number stands for its digits.

    Raises:
        FoveaError: a name that no class has, or that stands there twice, or none at all.
    """
    wanted = [str(name) for name in names]
    there = found.class_names
    for name in wanted:
        if name not in there:
            raise FoveaError(
                f"data.classes has '{name}', and the data set ({found.layout}) no such class."
                f"{did_you_mean(name, there)} It has {len(there)}: {shortened(there, 20)}."
            )
        if wanted.count(name) > 1:
            raise FoveaError(f"data.classes has '{name}' twice: name each class once.")
    if not wanted:
        raise FoveaError("data.classes=[] leaves no class: name some, or null for all.")
    kept = [name for name in there if name in wanted]
    new = torch.full((len(there),), -1)
    new[[there.index(name) for name in kept]] = torch.arange(len(kept))
    splits = {}
    for split, images in found.splits.items():
        splits[split] = images.take(new[images.labels] >= 0)
        splits[split].labels = new[splits[split].labels]
    layout = f"{len(kept)} of the {len(there)} classes of {found.layout}"
    return replace(found, class_names=kept, splits=splits, layout=layout)
