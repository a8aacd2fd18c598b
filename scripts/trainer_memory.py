"""What a run holds in memory, and which settings of a CPU make its steps shorter.

`benchmark_trainer.py --memory` and `--cpu` print what stands here.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

SOURCE = Path(__file__).resolve().parents[1] / "src"
MB = 2**20
LIBRARIES = "import torch, torchvision, lightning, timm, torchmetrics, hydra, pandas, matplotlib"

RESNET18 = ["model=resnet18", "data.batch_size=32", "trainer.max_epochs=1"]
VIT_S16 = ["model=vit_s16", "data.batch_size=8", "trainer.max_epochs=1"]
SETTINGS = {
    "contiguous, float32": ["channels_last=false", "trainer.precision=32-true"],
    "channels_last, float32 (default)": ["channels_last=true", "trainer.precision=32-true"],
    "channels_last, bf16-mixed": ["channels_last=true", "trainer.precision=bf16-mixed"],
}


def memory_report(images: str | None) -> list[str]:
    """Return the lines of a table of peaks: libraries alone, images in memory, images by workers.

    Args:
        images: a folder of class folders, for the run with workers; None leaves it out.
    """
    lines = [
        "| memory, peaks in MiB | main process, resident | workers | each worker, its own |",
        "| --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        alone = [sys.executable, "-c", f"{LIBRARIES}; import time; time.sleep(1)"]
        lines.append(_row("libraries alone", alone, Path(folder)))
        train = [sys.executable, str(SOURCE / "train.py"), "logger=none", "trainer=cpu"]
        digits = [*train, "data=digits", *RESNET18]
        lines.append(_row("ResNet-18, digits in memory, batch 32", digits, Path(folder)))
        if images is not None:
            words = [*train, "data=folder", f"data.root={images}", "data.num_workers=2", *RESNET18]
            words += ["data.image_size=224", "trainer.limit_train_batches=8"]
            lines.append(_row("ResNet-18, 224 pixels, batch 32, 2 workers", words, Path(folder)))
    return lines


def _row(name: str, words: list[str], folder: Path) -> str:
    main, workers = _peaks(words, folder)
    own = f"{max(workers.values()) / MB:.0f}" if workers else "–"
    return f"| {name} | {main / MB:.0f} | {len(workers)} | {own} |"


def _peaks(words: list[str], folder: Path) -> tuple[int, dict[int, int]]:
    """Return the peak resident bytes of a command, and those each child had for itself.

    Raises:
        RuntimeError: the command failed.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            words, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        main, children = 0, dict[int, int]()
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                main = max(main, watched.memory_info().rss)
                for child in watched.children(recursive=True):
                    own = child.memory_full_info().uss
                    children[child.pid] = max(children.get(child.pid, 0), own)
            except psutil.Error:
                pass  # it has just ended
            time.sleep(0.2)
        said.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{words} failed: {said.read()[-2000:]}")
    # A few MB are those that only ask the machine something, nvidia-smi for example.
    return main, {pid: own for pid, own in children.items() if own > 50 * MB}


def cpu_report(repeats: int) -> list[str]:
    """Return the lines of a table of milliseconds a step by network and setting, interleaved."""
    import torch

    lines = ["| ms a step (to the default) | " + " | ".join(SETTINGS) + " |"]
    lines.append("| --- |" + " --- |" * len(SETTINGS))
    default = list(SETTINGS)[1]
    for network, words in {"ResNet-18, 32 x 224": RESNET18, "ViT-S/16, 8 x 224": VIT_S16}.items():
        for threads in sorted({1, torch.get_num_threads(), psutil.cpu_count(logical=True) or 1}):
            torch.set_num_threads(threads)
            times = dict[str, list[float]]()
            for _ in range(repeats):
                for name, setting in SETTINGS.items():
                    times.setdefault(name, []).append(statistics.median(_steps(words, setting)))
            medians = {name: statistics.median(found) for name, found in times.items()}
            cells = (f"{t:.0f} ({t / medians[default]:.2f})" for t in medians.values())
            lines.append(f"| {network}, threads: {threads} | " + " | ".join(cells) + " |")
    return lines


def _steps(words: list[str], setting: list[str]) -> Iterator[float]:
    """Yield the milliseconds of a few steps on noise, without those of the loader."""
    import torch

    from fovea.experiment import build, compose
    from fovea.types import Batch

    with tempfile.TemporaryDirectory() as folder:
        common = ["data=digits", "data.image_size=224", "data.channels=3", "augment=none"]
        common += ["logger=none", "trainer=cpu", f"paths.outputs={folder}"]
        cfg = compose([*common, *words, *setting])
        Path(cfg.paths.run).mkdir(parents=True)
        experiment = build(cfg)
        task, plugin = experiment.task, experiment.trainer.precision_plugin
        if cfg.channels_last:
            task.backbone.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(task.parameters(), 1e-4)
        size = int(cfg.data.batch_size)
        images = torch.rand(size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(size) % 10
        for step in range(5):
            began = time.perf_counter()
            with plugin.forward_context():
                loss = task.training_loss(Batch(images, labels, labels))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step:  # the first one sets up much
                yield 1000 * (time.perf_counter() - began)
