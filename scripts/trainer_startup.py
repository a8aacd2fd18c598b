"""How long a run takes until its first step, against importing its libraries and nothing else.

Both leave at once where they are measured: for Python to take down what it imported costs another
second, which would be counted on one side only. W&B's own process is not in the processor time,
since it is left running; what is waited for of it is in the wall time.
"""

from __future__ import annotations

import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src"
TRAIN = str(SOURCE / "train.py")
MARK = "FIRST STEP"

LIBRARIES = f"""
import os, torch, lightning, torchvision, timm, hydra, torchmetrics, wandb
from sklearn.datasets import load_digits
load_digits()
network = torchvision.models.resnet18(num_classes=10)
print("{MARK}", flush=True)
os._exit(0)
"""
"""What a run on digits with its default settings cannot do without."""

COMMANDS: dict[str, tuple[list[str], str]] = {
    "libraries, data and network alone": (["-c", LIBRARIES], MARK),
    "src/train.py to the first step": ([__file__], MARK),
    "the same, logger=none": ([__file__, "logger=none"], MARK),
    "src/train.py --help": ([TRAIN, "--help"], "resnet18"),
    "a typo": ([TRAIN, "model=resnet81"], "Did you mean 'resnet18'?"),
    "src/train.py --cfg job": ([TRAIN, "--cfg", "job"], "max_epochs: 20"),
}
"""What is started, and what it says if it came as far as it should."""


def main() -> None:
    """Be ``src/train.py`` until its first step; print the heavy modules that it has imported."""
    from fovea.tasks import Task

    def leave(*_: Any) -> None:
        packages = {name.partition(".")[0] for name in sys.modules}
        launcher = {"wandb.sdk.launch"} & set(sys.modules)
        print(MARK, *sorted(packages | launcher), flush=True)
        os._exit(0)  # W&B's process ends with this one

    Task.on_train_batch_start = leave  # type: ignore[method-assign]
    sys.argv[0] = TRAIN
    runpy.run_path(TRAIN, run_name="__main__")


def measure(words: list[str], says: str, folder: Path) -> tuple[float, float]:
    """Return wall and processor seconds of ``python <words>``, with the processes it waited for.

    Raises:
        RuntimeError: it did not come as far as to say ``says``.
    """
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "WANDB_MODE": "offline"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # Into a file: W&B's process would hold a pipe open.
    with tempfile.TemporaryFile("w+") as printed:
        subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=printed, stderr=subprocess.STDOUT, check=False, timeout=90,
        )  # fmt: skip
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        printed.seek(0)
        if says not in (text := printed.read()):
            raise RuntimeError(f"{words} did not come to {says!r}: {text[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(repeats: int) -> list[str]:
    """Return the lines of a table: medians of interleaved repeats."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name, (words, says) in COMMANDS.items():
                times[name].append(measure(words, says, Path(folder)))
    alone = next(iter(times.values()))
    lines = ["| start-up | wall s | CPU s | CPU to libraries alone |", "| --- | --- | --- | --- |"]
    for name, found in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(
            one[1] / other[1] for one, other in zip(found, alone, strict=True)
        )
        lines.append(f"| {name} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} |")
    return lines


if __name__ == "__main__":
    main()
