"""The file that keeps predictions: an ``.npz`` of arrays, with one member of JSON beside them.

Members: ``indices.npy``, ``labels.npy``, ``logits.npy`` and ``about.json`` (``paths``,
``class_names``, ``about``; files of older versions lack it). NumPy opens it as any ``.npz``, and
nothing in it is a pickle. Logits are stored as they are: to deflate them takes fifteen times as
long (7 s against 0.4 s for 50,000 x 1000) and saves a fourteenth.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fovea.checkpoints import durable
from fovea.errors import FoveaError

if TYPE_CHECKING:
    from fovea.evaluation.predictions import Predictions

_ARRAYS = ("indices", "labels", "logits")
_TEXT = "about.json"
_SMALLEST = 2.0**-24
"""The float16 number next to 0."""
_UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_predictions(path: Path, predictions: Predictions, dtype: str) -> None:
    """Write ``predictions`` to ``path`` as a whole; see `Predictions.save`."""
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype={dtype!r}: logits are stored as float32 or float16")
    arrays = {name: getattr(predictions, name) for name in _ARRAYS}
    if dtype == "float16":
        arrays["logits"] = _halve(predictions.logits)
    text = {
        "paths": predictions.paths,
        "class_names": predictions.class_names,
        "about": predictions.about,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with durable.partial(path).open("w+b") as file:
            np.savez(file, **{name: array.numpy() for name, array in arrays.items()})
            with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(_TEXT, json.dumps(text))
            file.flush()
            os.fsync(file.fileno())
        durable.put_in_place(path)
    finally:
        durable.partial(path).unlink(missing_ok=True)  # of a disk that was full


def _halve(logits: Tensor) -> Tensor:
    """Return ``logits`` as float16, each row less its maximum, with the same predicted class."""
    shifted = logits - logits.amax(dim=1, keepdim=True)
    lowest = torch.finfo(torch.float16).min  # exp(lowest) is 0
    half = torch.where(shifted.isinf(), shifted, shifted.clamp(min=lowest)).half()
    # A class just behind the first must not become its equal.
    return half.masked_fill_((half == 0) & (shifted < 0), -_SMALLEST)


def read_predictions(path: Path, build: Callable[..., Predictions]) -> Predictions:
    """Return what ``build`` makes of the fields in the file at ``path``.

    Raises:
        FoveaError: there is no such file, or it is not a file of predictions.
    """
    try:
        return build(**_read(path))
    except FileNotFoundError as error:
        raise FoveaError(f"There is no file of predictions at {path}.") from error
    except _UNREADABLE as error:
        first = str(error).partition("\n")[0]
        raise FoveaError(
            f"{path} is not a file of predictions, or is damaged: {first}\n  It has to be an .npz "
            "with the arrays indices, labels and logits, as Predictions.save writes it. eval.py "
            "makes one from a checkpoint: python src/eval.py ckpt=outputs/<run>"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):  # NumPy would advise to load it as a pickle
            raise ValueError("it is no .npz archive")
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in _ARRAYS}
        text = _described(json.loads(archive[_TEXT]) if _TEXT in archive.files else {})
    for name in ("indices", "labels"):
        if found[name].ndim != 1 or found[name].dtype.kind not in "iu":
            raise ValueError(f"{name} has to be (N,) integers, not {_shape(found[name])}")
    logits, labels = found["logits"], found["labels"]
    if logits.ndim != 2 or logits.shape[1] == 0 or logits.dtype.kind != "f":
        raise ValueError(f"logits has to be (N, K) floating point, not {_shape(logits)}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for {logits.shape[1]} classes"
        )
    return {
        "indices": torch.from_numpy(found["indices"]).long(),
        "labels": torch.from_numpy(labels).long(),
        "logits": torch.from_numpy(logits).float(),
        **text,
    }


def _described(text: Any) -> dict[str, Any]:
    """Return ``paths``, ``class_names`` and ``about`` of what stands in ``about.json``."""
    if not isinstance(text, dict):
        raise ValueError(f"{_TEXT} has to be an object, not {_kind(text)}")
    about = text.get("about", {})
    if not isinstance(about, dict):
        raise ValueError(f"about in {_TEXT} has to be an object, not {_kind(about)}")
    split = about.get("split")
    # A file is named after it.
    if split is not None and not (isinstance(split, str) and Path(split).name == split):
        raise ValueError(f"split in {_TEXT} has to be a name, not {split!r}")
    if "metrics" in about:
        about["metrics"] = _numbers(about["metrics"])
    if "warnings" in about:
        about["warnings"] = list(_texts(about, "warnings"))
    return {
        "paths": _texts(text, "paths"),
        "class_names": _texts(text, "class_names"),
        "about": about,
    }


def _texts(text: dict[str, Any], key: str) -> tuple[str, ...]:
    found = text.get(key, [])
    if not isinstance(found, list):
        raise ValueError(f"{key} in {_TEXT} has to be a list, not {_kind(found)}")
    for item in found:
        if type(item) not in (str, int):
            raise ValueError(f"{key} in {_TEXT} has to be a list of text, with no {_kind(item)}")
    return tuple(str(item) for item in found)


def _numbers(metrics: Any) -> dict[str, float]:
    """Return those of ``metrics`` that are numbers; others could be put into no table."""
    if not isinstance(metrics, dict):
        raise ValueError(f"metrics in {_TEXT} has to be an object, not {_kind(metrics)}")
    return {name: value for name, value in metrics.items() if type(value) in (int, float)}


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _shape(array: np.ndarray) -> str:
    return f"{array.shape} {array.dtype}"
