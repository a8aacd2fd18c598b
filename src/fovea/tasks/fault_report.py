"""What is kept of a training step whose loss or gradients were no numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fovea.errors import printable
from fovea.tasks import replicas
from fovea.types import unreadable_index

MAX_BATCH_BYTES = 64 * 2**20
"""Most that the images saved by one rank may take; later images of the batch are left out."""


def statistics(
    parts: dict[str, dict[str, int]],
    parameters: Iterable[tuple[str, nn.Parameter]],
    of: Callable[[nn.Parameter], Tensor | None],
) -> list[dict[str, Any]]:
    """Return a row for each stage: numbers of values, min, max, mean of absolute values.

    Min, max and mean are those of the finite values. Stages with values that are not finite come
    first, those with most of them before the others, then those with the largest values.

    Args:
        parts: stage -> names of its parameters, see `Task.parts`.
        parameters: (name, parameter).
        of: a parameter's values, itself or its gradient; None leaves it out.
    """
    named, rows = dict(parameters), []
    for stage, names in parts.items():
        found = [of(named[name]) for name in names]
        tensors = [tensor.detach().float().flatten() for tensor in found if tensor is not None]
        if not tensors:
            continue
        values = torch.cat(tensors)
        finite = values[values.isfinite()]
        row = {"stage": stage, "values": len(values), "not_finite": len(values) - len(finite)}
        row |= dict.fromkeys(("min", "max", "mean_abs"))
        if len(finite):
            low, high = finite.aminmax()
            row |= {"min": low.item(), "max": high.item(), "mean_abs": finite.abs().mean().item()}
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["not_finite"], -_largest(row)))


def _largest(row: dict[str, Any]) -> float:
    return 0.0 if row["min"] is None else max(-row["min"], row["max"])


def save_batch(
    path: Path, micro_batches: Sequence[dict[str, Tensor]], dataset: Any, epoch: int
) -> None:
    """Write a rank's batch as plain tensors, for ``torch.load(path, weights_only=True)``.

    ``images`` (n, C, H, W) uint8 as the loader gave them, at most `MAX_BATCH_BYTES`; for all
    samples ``indices``, ``labels``, ``seeds`` (random changes on the device) and ``micro_batch``
    (B,) int64.

    Args:
        path: of the file.
        micro_batches: ``indices``, ``labels`` and ``seeds`` of each, (b,) int64.
        dataset: of the training loader, to make the images once more; they are left out if it
            can't.
        epoch: counted from 0.
    """
    names = micro_batches[0].keys()
    content = {name: torch.cat([m[name] for m in micro_batches]).cpu() for name in names}
    sizes = torch.tensor([len(m["indices"]) for m in micro_batches])
    content["micro_batch"] = torch.arange(len(sizes)).repeat_interleave(sizes)
    if hasattr(dataset, "remake") and "seeds" in content:
        image_bytes = torch.Size(dataset.image_shape).numel()
        count = max(1, MAX_BATCH_BYTES // image_bytes)
        first = (content[name][:count] for name in ("indices", "seeds"))
        content["images"] = dataset.remake(*first, epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def micro_batch_rows(
    rank: int, micro_batches: Sequence[dict[str, Tensor]], losses: Tensor, dataset: Any
) -> list[dict[str, Any]]:
    """Return a row for each micro-batch of all ranks: rank, micro_batch, loss, files.

    Every rank must call it.
    """
    indices = [micro_batch["indices"].tolist() for micro_batch in micro_batches]
    rows = [
        {"rank": rank, "micro_batch": number, "loss": loss, "files": files(dataset, chosen)}
        for number, (loss, chosen) in enumerate(zip(losses.tolist(), indices, strict=True))
    ]
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    everyone: list[list[dict[str, Any]]] = [[]] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, rows)
    return [row for rows in everyone for row in rows]


def files(dataset: Any, indices: Sequence[int]) -> list[str]:
    """Return the files of a batch, or its indices where the data set has no files."""
    samples = [index if index >= 0 else unreadable_index(index) for index in indices]
    if not hasattr(dataset, "path"):
        return [str(sample) for sample in samples]
    return [dataset.path(sample) for sample in samples]


def where(path: Path, batch: Path, report: dict[str, Any]) -> str:
    """Return lines on what was written, and how to look at it; each begins with a line feed."""
    names = [name for row in report["micro_batches"] for name in row["files"]]
    worst = report["gradients"][:1] or report["parameters"][:1]
    rows = [f"  images       {', '.join(map(printable, names[:3]))} … ({len(names)})"]
    rows += [
        f"  gradients    {row['stage']}: {row['not_finite']:,} of {row['values']:,} not finite"
        for row in worst
    ]
    rows += [
        f"  all of it    {path}",
        f"  the batch    python -c \"import torch; print(torch.load('{batch}', "
        'weights_only=True))"',
    ]
    return "".join(f"\n{row}" for row in rows)


def describe_model(task: Any) -> dict[str, list[dict[str, Any]]]:
    """Return `statistics` of parameters and of gradients, as they are now, for each stage."""
    named, parts = list(replicas.named_parameters(task)), task.parts()
    return {
        "gradients": statistics(parts, named, lambda parameter: parameter.grad),
        "parameters": statistics(parts, named, lambda parameter: parameter),
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write ``report`` as JSON; what is no number is written as text ("nan", "inf")."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(report), indent=2) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
