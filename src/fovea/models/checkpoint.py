"""Checkpoint files of any project as flat dictionaries of tensors; no code in them ever runs."""

from __future__ import annotations

import argparse
import pathlib
import re
import shlex
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, load_file
from torch import Tensor

from fovea.errors import FoveaError
from fovea.models.stages import common_prefix

_numpy_scalar = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),  # the name before NumPy 2
]
"""Classes without behaviour that training scripts leave beside the weights (their arguments, a
best accuracy as a NumPy number); torch knows them as unsafe only because it does not know them."""

_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student", "module")
"""Keys under which projects keep the weights, best first: averaged weights are the better ones."""


def resolve_checkpoint(path: Path) -> Path:
    """Return the file that holds the weights: ``path`` itself, or a run folder's best checkpoint.

    Raises:
        FoveaError: there is no such file, or the folder is not a run's.
    """
    path = path.expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        for found in (path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"):
            if found.is_file():
                return found
        raise FoveaError(
            f"The folder {path} holds no checkpoints/best.ckpt or checkpoints/last.ckpt, so it is "
            "not the folder of a run. Give the checkpoint file itself: model.weights=<file>."
        )
    raise FoveaError(f"There is no file of weights at {path.absolute()} (model.weights={path}).")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a .safetensors file or of anything that ``torch.save`` wrote.

    Raises:
        FoveaError: not a checkpoint, cut short, or not readable without running code from it.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path) if _is_text(path) else load(path.read_bytes()))
        with torch.serialization.safe_globals(_HARMLESS), path.open("rb") as file:
            lazy = zipfile.is_zipfile(path) and _is_text(path)
            source = path if lazy else file
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=lazy)
    except Exception as error:  # a damaged or forged file raises anything: KeyError, MemoryError
        raise FoveaError(_unreadable(path, error)) from error
    if not isinstance(content, Mapping):
        raise FoveaError(
            f"{path} holds a {type(content).__name__}, where a dictionary of tensors is needed. "
            "Save a network's weights with torch.save(network.state_dict(), path)."
        )
    return dict(content)


def _is_text(path: Path) -> bool:
    """Return whether all bytes of the path's name are UTF-8, as code outside of Python needs it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(path: Path, error: Exception) -> str:
    """Return why ``path`` could not be read and what to do."""
    text = str(error)
    name = repr(str(path))  # in Python; quoted for the shell, where `$(…)` in a name would run
    if code := re.search(r"unsupported global:?\s+(?:GLOBAL\s+)?(\S+)", text, re.IGNORECASE):
        saving = (
            f"import torch; c = torch.load({name}, weights_only=False); torch.save(c['state_dict'] "
            "if isinstance(c, dict) else c.state_dict(), 'weights.pth')"
        )
        return (
            f"{path} holds '{code[1]}' and cannot be read without running code that it brings "
            "along, which is refused: it may do anything. If you trust its origin, save the "
            f"tensors alone: python -c {shlex.quote(saving)}"
        )
    if "TorchScript" in text:
        saving = f"import torch; torch.save(torch.jit.load({name}).state_dict(), 'weights.pth')"
        return (
            f"{path} is a TorchScript archive. Save its tensors alone, if you trust its origin: "
            f"python -c {shlex.quote(saving)}"
        )
    if "legacy .tar" in text:
        return (
            f"{path} is in torch's format of before 2017, which can't be read without running code "
            "that it brings along: refused. Take the weights as .safetensors or a state_dict."
        )
    # what torch says about other pickles is advice to load them unsafely
    reason = "" if not text or "weights_only" in text else f" ({text.splitlines()[0][:200]})"
    return (
        f"{path}, {path.stat().st_size} bytes, is not a readable checkpoint{reason}. It may be cut "
        "off, a pickle that would run code, or a web page or pointer in place of the weights: "
        "fetch it again and compare its size."
    )


def tensors_in(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Return the weights in a checkpoint, and the keys they are nested under ("model_ema").

    What ``torch.compile`` puts into names (``_orig_mod.``) is taken out.
    """
    nests = [key for key in _NESTS if _count(content.get(key))]
    if not nests:  # another project's name for it: the nested dictionary with the most tensors
        inner = [key for key, value in content.items() if _count(value)]
        nests = sorted(inner, key=lambda key: -_count(content[key]))
    own = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if nests and _count(content[nests[0]]) > len(own):
        tensors, below = tensors_in(content[nests[0]])
        return tensors, f"{nests[0]}.{below}" if below else str(nests[0])
    return {str(name).replace("_orig_mod.", ""): tensor for name, tensor in own.items()}, ""


def _count(value: object) -> int:
    """Return how many tensors a nested dictionary holds."""
    if not isinstance(value, Mapping):
        return 0
    return sum(1 if isinstance(v, Tensor) else _count(v) for v in value.values())


def find_prefix(keys: Iterable[str], names: Iterable[str]) -> str:
    """Return what stands before ``names`` in most of ``keys``: "module.", "model.backbone.", "".

    If fewer than half of the names are found behind any prefix (an older format of the same
    network), the prefix that all keys share.
    """
    keys, wanted = list(keys), set(names)
    found: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in wanted:
                found["".join(f"{part}." for part in parts[:i])] += 1
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    if 2 * count >= len(wanted) or not keys:
        return prefix
    shared = common_prefix(keys)
    return f"{shared}." if shared else ""
