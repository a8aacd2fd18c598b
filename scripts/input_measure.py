"""One run of `benchmark_input.py`: a job, measured in a process of its own.

    python scripts/input_measure.py measure|pack JOB

is how the benchmark starts it; JOB is `input_files.Job` as JSON.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import torch
from input_files import SMALL, SMALL_SIZE, Job
from input_peers import DALI, FFCV, LitData, WebDataset
from input_small import FFCVSmall, FoveaSmall, TorchvisionSmall
from input_ways import (
    SIZE,
    Fovea,
    FoveaFloat,
    FoveaShards,
    FoveaSimplejpeg,
    Timm,
    Torchvision,
    TorchvisionTensors,
    Way,
)
from torch import Tensor

from fovea.errors import FoveaError

WAYS: list[Way] = [
    Torchvision(),
    TorchvisionTensors(),
    Timm(),
    WebDataset(),
    LitData(),
    DALI(),
    FFCV(),
    FoveaFloat(),
    FoveaSimplejpeg(),
    Fovea(),
    FoveaShards(),
    TorchvisionSmall(),
    FFCVSmall(),
    FoveaSmall(),
]
"""In the order of the printed rows. Those that read other parts may share a name."""

REFERENCE, OURS = Torchvision.name, Fovea.name

WARM_UP = 0.5
"""Seconds: what lay ready while the first batch was made is gone, and the processor has settled."""

_TIMEOUT = 900


def find_way(name: str, part: str) -> Way:
    """Return the way of that name that reads ``part``."""
    return next(way for way in WAYS if way.name == name and way.parts([part]))


def measure(job: Job) -> dict[str, Any]:
    """Return images/s, CPU milliseconds an image, and what a batch is.

    Whole turns of the workers are counted: their batches come in bursts.
    """
    torch.set_num_threads(1)
    batches = find_way(job.way, job.part).batches(job)
    first = next(batches)
    check(first, job)
    turn = max(1, job.workers)
    began, warm = time.perf_counter(), 0
    while warm < 2 * turn or time.perf_counter() - began < WARM_UP:
        next(batches)
        warm += 1
    images, cpu, began, elapsed = 0, cpu_seconds(), time.perf_counter(), 0.0
    while elapsed < job.seconds:
        images += sum(len(next(batches)) for _ in range(turn))
        elapsed = time.perf_counter() - began
    return {
        "images_per_second": images / elapsed,
        "cpu_ms": 1000 * (cpu_seconds() - cpu) / images,
        "gives": str(first.dtype).removeprefix("torch."),
    }


def check(images: Tensor, job: Job) -> None:
    """Raise unless ``images`` is a batch of the size that is compared."""
    side = SMALL_SIZE if job.part == SMALL else SIZE
    shapes = [(job.batch_size, 3, side, side), (job.batch_size, side, side, 3)]
    if tuple(images.shape) not in shapes:
        raise FoveaError(f"{job.way} gave a batch of {tuple(images.shape)}, not {shapes[0]}")


def cpu_seconds() -> float:
    """Return the CPU time that this process and its children took so far.

    NaN where there are children and the system does not say what they took (Linux does).
    """
    times = os.times()
    living = sum(child_seconds(child.pid) for child in active_children())
    return times.user + times.system + times.children_user + times.children_system + living


def child_seconds(process: int | None) -> float:
    """Return the CPU time of a process that runs."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_own_process(task: str, job: Job) -> dict[str, Any]:
    """Return what ``task``, ``measure`` or ``pack``, of ``job`` gives in a fresh Python.

    So that no way meets another's threads, caches or settings.

    Raises:
        FoveaError: it failed; with the last line that it wrote.
    """
    words = [sys.executable, __file__, task, json.dumps(asdict(job))]
    quiet = {**os.environ, "DISABLE_VERSION_CHECK": "1"}  # LitData asks the network otherwise
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT, env=quiet)
    except subprocess.TimeoutExpired as error:
        raise FoveaError(f"not done after {_TIMEOUT} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise FoveaError(lines[-1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(task: str, job: Job) -> None:
    """Do what `in_own_process` asked this process for, and print the result."""
    result = {}
    if task == "pack":
        find_way(job.way, job.part).pack(job)
    else:
        result = measure(job)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Job(**json.loads(sys.argv[2])))
