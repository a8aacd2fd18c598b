"""What this machine can do, checked before a run counts on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from fovea.errors import FoveaError


def is_main_process() -> bool:
    """Return whether this process is rank 0 of its run: the one that prints and writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _num_gpus() -> int:
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return int(torch.backends.mps.is_available())


def check(accelerator: str, devices: Any) -> None:
    """Raise `FoveaError` if ``trainer.devices`` asks for more than this machine has.

    Args:
        accelerator: ``trainer.accelerator``.
        devices: ``trainer.devices``: a count, "auto", -1 or a list of device numbers.
    """
    gpus = _num_gpus()
    has = f"this machine has {gpus or 'no'} GPU{'' if gpus == 1 else 's'}"
    ways = "trainer=default" if gpus else "trainer=cpu"
    if gpus > 1:
        ways += f", trainer.devices={gpus}"
    ways += ", or processes on the CPU: trainer=ddp_cpu trainer.devices=2"
    wants_gpu = accelerator in {"gpu", "cuda", "mps"}
    if wants_gpu and gpus == 0:
        raise FoveaError(f"trainer.accelerator={accelerator}, but {has}. What works here: {ways}")
    if not (wants_gpu or accelerator == "auto"):
        return
    count = len(devices) if isinstance(devices, list | tuple) else devices
    highest = max(devices, default=0) + 1 if isinstance(devices, list | tuple) else count
    if isinstance(count, int) and max(count, highest) > max(gpus, 1):
        raise FoveaError(f"trainer.devices={devices}, but {has}. What works here: {ways}")


def precision(wanted: str, accelerator: str) -> str:
    """Return ``wanted``, with "auto" replaced by the fastest precision that trains alike.

    That is bf16-mixed on GPUs with native bfloat16, 16-mixed on older CUDA GPUs, 32-true elsewhere
    (bfloat16 autocast on CPUs is slower than float32 for convolutions on most).
    """
    if wanted != "auto":
        return wanted
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def check_disk(folder: Path, module: nn.Module, keep: int) -> None:
    """Raise `FoveaError` unless ``folder``'s disk has room for the checkpoints of ``module``.

    Counted: the best, ``keep`` generations of the last, and one more that is being written before
    an old one goes, each with parameters, buffers and two optimiser moments, plus an averaged copy:
    four times the weights. Those that a resumed run has already make room for their successors.
    """
    tensors = [*module.parameters(), *module.buffers()]
    one = 4 * sum(t.numel() * t.element_size() for t in tensors)
    there = sum(file.stat().st_size for file in folder.glob("checkpoints/*.ckpt"))
    need = max(0, (keep + 2) * one - there)
    free = shutil.disk_usage(folder).free
    if free < need:
        less = " or keep fewer (checkpoint.keep=1)," if keep > 1 else ""
        raise FoveaError(
            f"{folder} has {free / 1e9:.2f} GB left, checkpoints of this network need up to "
            f"{need / 1e9:.2f} GB: {keep + 2} x {one / 1e9:.2f} GB. Make room,{less} or write "
            "elsewhere: paths.outputs=/path/with/room"
        )
