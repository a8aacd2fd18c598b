"""ImageNet's validation images labelled anew, with all classes that are right for each.

Source: Beyer et al. 2020, "Are we done with ImageNet?" (arXiv 2006.07159).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fovea.errors import FoveaError

_ADDRESS = "https://github.com/google-research/reassessed-imagenet (real.json)"
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.[A-Za-z]+$")


def read_real_labels(path: Path | str | None = None) -> list[list[int]]:
    """Return the class numbers (sorted wnids) of each validation image; some have none.

    Args:
        path: of ``real.json``; None for the copy that timm ships.

    Raises:
        FoveaError: no such file, or another content.
    """
    shipped = files("timm.data") / "_info" / "imagenet_real_labels.json"
    try:
        text = shipped.read_text() if path is None else Path(path).expanduser().read_text()
        labels = json.loads(text)
    except FileNotFoundError:
        raise FoveaError(f"No file {path} (real_labels). It is to be had from {_ADDRESS}") from None
    except (OSError, ValueError) as error:
        raise FoveaError(f"{path} (real_labels) can't be read: {error}") from error
    if not isinstance(labels, list) or not all(
        isinstance(entry, list) and all(type(k) is int and 0 <= k < 1000 for k in entry)
        for entry in labels
    ):
        raise FoveaError(
            f"{path} (real_labels) is not as real.json is: a list with, for each image, a list of "
            f"class numbers from 0 to 999. It is to be had from {_ADDRESS}"
        )
    return labels


def real_labels_of(paths: Sequence[str], labels: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Return the labels of images by the number in their names, ILSVRC2012_val_00000001.JPEG on.

    Raises:
        FoveaError: an image that is not of the validation set.
    """
    found = []
    for path in paths:
        match = _VAL_IMAGE.search(path)
        if match is None or not 1 <= int(match[1]) <= len(labels):
            raise FoveaError(
                f"real_labels: {path} is none of the {len(labels):,} images of ImageNet's "
                "validation set, ILSVRC2012_val_<number>.JPEG. Evaluate data=imagenet split=val."
            )
        found.append(labels[int(match[1]) - 1])
    return found
