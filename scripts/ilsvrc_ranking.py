"""The best classes of saved predictions, of one network or several, as the devkit numbers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fovea import run_folder
from fovea.data import imagenet_classes
from fovea.errors import FoveaError
from fovea.evaluation import Predictions


class ByID(NamedTuple):
    """Predictions with the classes sorted by ILSVRC2012_ID.

    Attributes:
        names: (N,) of the image files.
        ids: (K,) ascending.
        probabilities: (N, K).
    """

    names: list[str]
    ids: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def rank_classes(
    runs: Sequence[str], split: str, wnid_of_id: Mapping[int, str], count: int
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names (N,) of the images, and (N, count) ILSVRC2012_IDs, the best class first.

    Args:
        runs: see `fovea.run_folder.predictions`. Probabilities of several are averaged.
        split: of the runs.
        wnid_of_id: the classes, by ILSVRC2012_ID.
        count: of guesses; fewer where there are fewer classes. Of equally probable classes the one
            with the smaller ID comes first.

    Raises:
        FoveaError: predictions that are missing, without names, not finite, or of other images or
            classes than the first run's.
    """
    first = read_by_id(runs[0], split, wnid_of_id)
    total = first.probabilities
    for run in runs[1:]:
        other = read_by_id(run, split, wnid_of_id)
        if sorted(other.names) != sorted(first.names):
            raise FoveaError(f"{run} has predictions of other images than {runs[0]}.")
        if other.ids.tolist() != first.ids.tolist():
            raise FoveaError(f"{run} knows other classes than {runs[0]}.")
        row_of = {name: row for row, name in enumerate(other.names)}
        total += other.probabilities[[row_of[name] for name in first.names]]
    best = np.argsort(-total, axis=1, kind="stable")[:, :count]
    return first.names, first.ids[best]


def read_by_id(run: str, split: str, wnid_of_id: Mapping[int, str]) -> ByID:
    """Return the predictions of ``run``; see `rank_classes`."""
    predictions = Predictions.load(run_folder.predictions(run, split))
    if not (predictions.paths and predictions.class_names):
        raise FoveaError(
            f"The predictions of {run} do not say which images and classes they are of: they were "
            "saved by an earlier version. Make them anew: python src/eval.py ckpt=…"
        )
    broken = (~predictions.valid).nonzero().flatten().tolist()
    if broken:
        raise FoveaError(
            f"{len(broken):,} predictions of {run} are not finite (NaN or infinite), the first of "
            f"{predictions.paths[broken[0]]}: that network can't be ranked."
        )
    ids = np.array(class_ids(predictions.class_names, wnid_of_id), dtype=np.int64)
    order = np.argsort(ids)
    # In double precision, or all classes but those near the best would be 0, and so equal.
    probabilities = predictions.logits.double().softmax(dim=1).numpy()
    names = [Path(path).name for path in predictions.paths]
    return ByID(names, ids[order], probabilities[:, order])


def class_ids(class_names: Sequence[str], wnid_of_id: Mapping[int, str]) -> list[int]:
    """Return the ILSVRC2012_ID of each class, named by its wnid or as ``data=imagenet`` does.

    Raises:
        FoveaError: a name that is neither, or a class that the devkit lacks.
    """
    id_of = {wnid: number for number, wnid in wnid_of_id.items()}
    wnid_of_name = {name: wnid for wnid, name in imagenet_classes().items()}
    wnids = [wnid_of_name.get(name, name) for name in class_names]
    strange = [name for name, wnid in zip(class_names, wnids, strict=True) if wnid not in id_of]
    if strange:
        raise FoveaError(
            f"{len(strange)} of {len(class_names)} classes are not in the devkit, such as "
            f"'{strange[0]}'. Classes are known by their wnid (n01440764) or by their name in "
            "data=imagenet."
        )
    return [id_of[wnid] for wnid in wnids]
