"""Whether two runs ended in the same state, bit for bit."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Where files lie; what a run was told; scores that are not kept (Lightning); loops of the past.
_ELSEWHERE = re.compile(
    r"/(dirpath|best_model_path|last_model_path|kth_best_model_path|best_k_models|current_score)$"
    r"|^/fovea|val_loop\.batch_progress"
)


def differences(uncut: Path, other: Path) -> list[str]:
    """Return what differs between two finished run folders, in words; nothing if all is equal.

    Compared are all tensors and numbers of last.ckpt (weights, averaged weights, optimiser,
    scheduler, callbacks, counters of the loops) and the weights of best.ckpt, metrics.csv but for
    ``perf/*``, and objective, metrics and epochs of summary.json.
    """
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        one, two = (
            torch.load(folder / "checkpoints" / name, map_location="cpu", weights_only=True)
            for folder in (uncut, other)
        )
        if name == "best.ckpt":
            one, two = one["state_dict"], two["state_dict"]
        found += [f"{name}: {text}" for text in compare(one, two)]
    found += [f"metrics.csv: {text}" for text in compare(table(uncut), table(other))]
    one, two = (_outcome(folder) for folder in (uncut, other))
    return found + [f"summary.json: {text}" for text in compare(one, two)]


def compare(one: Any, two: Any, where: str = "") -> Iterator[str]:
    """Yield the places where two nested containers of tensors and plain values differ."""
    if _ELSEWHERE.search(where):
        return
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        for key in one:
            yield from compare(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        for number, pair in enumerate(zip(one, two, strict=True)):
            yield from compare(*pair, f"{where}/{number}")
    elif isinstance(one, Tensor) and isinstance(two, Tensor):
        same_form = one.shape == two.shape and one.dtype == two.dtype
        if not same_form or not torch.equal(_bits(one), _bits(two)):
            yield f"{where}: tensors differ"
    elif one != two and not (one != one and two != two):  # NaN is NaN
        yield f"{where}: {_short(one)} is not {_short(two)}"


def table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without what depends on the machine's mood."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def _outcome(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "summary.json").read_text())
    metrics = {k: v for k, v in summary["metrics"].items() if not k.startswith("perf/")}
    return {key: summary[key] for key in ("state", "objective", "epochs")} | {"metrics": metrics}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor


def _short(value: Any) -> str:
    text = str(sorted(value)) if isinstance(value, dict) else str(value)
    return text if len(text) < 80 else text[:77] + "..."
