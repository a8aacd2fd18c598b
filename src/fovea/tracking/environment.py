"""What a run ran on: versions, hardware, source code and command line, as plain JSON types."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fovea.safety.redaction import redact_command

PACKAGES = (
    "fovea", "torch", "torchvision", "lightning", "timm", "torchmetrics", "hydra-core", "wandb",
    "numpy", "pillow",
)  # fmt: skip


def environment_record(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what is needed to judge or repeat a run; JSON-plain, never raises, below a second.

    Args:
        command: the command line; None takes this process's own. Values that look like secrets
            become ``***``.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redact_command(sys.orig_argv if command is None else command),
        "folder": _working_directory(),
        "git": git_state(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "os": platform.platform(),
        "host": platform.node(),
        "cpu": _cpu(),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Return ``commit`` (40 hex digits) and ``dirty`` of the repository ``folder`` is part of.

    Both are None where there is no repository, no commit yet, or ``folder`` is ignored by it (an
    installed package in a virtual environment inside some other project). Untracked files count as
    dirty: a new model file belongs to what was run.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "check-ignore", "--quiet", str(folder)) is not None:
        return {"commit": None, "dirty": None}
    status = _git(folder, "status", "--porcelain")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None if it fails, is absent or takes longer than 5 s."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=5,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = re.findall(r"^model name\s*:\s*(.+)$", text, re.M)[0]
    except (OSError, IndexError):
        pass  # not Linux, or an ARM kernel that does not name it
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"model": model, "count": os.cpu_count(), "usable": usable}


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[dict[str, Any]]:
    try:
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    except RuntimeError as error:  # a driver that does not fit
        return [{"error": str(error)}]
    return [
        {"name": device.name, "memory_gb": round(device.total_memory / 1e9, 1)}
        for device in devices
    ]
