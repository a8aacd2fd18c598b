"""Compare fovea's cifar10_speedrun with a plain torch script of the same method.

    python scripts/benchmark_speedrun.py --root <CIFAR-10> --device cuda     # the whole of it
    python scripts/benchmark_speedrun.py --root <CIFAR-10> --width 0.25 --images 20000
                                         --batch-size 256 --epochs 4         # minutes of a CPU

Both train on the same images in memory, with the same settings, in one process and by turns: for
each seed the plain script (`speedrun_plain.py`) and the run that a user starts, the other way round
for every second seed. Compared are the share of right answers on the test images, seen as the
recipe sees them, and the time of an epoch, by the wall and by processor time (the steadier on a
busy machine). Reading files, whitening and evaluation are not in it. On a GPU the sum of the epochs
and the evaluation's seconds say how long 94 % take.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As src/train.py has it: the library beside this folder, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import speedrun_plain as plain
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fovea.data.resident import ResidentLoader
from fovea.experiment import Experiment, build, build_data, compose
from fovea.judging import predict_split

CLASSES = 10
WHITENING = 5000


@dataclass
class Images:
    """The images that both sides train and are judged on: uint8 (N, 3, 32, 32), int64 (N,)."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


@dataclass
class Run:
    """What a run took: seconds of each epoch, seconds of the evaluation, and what it reached."""

    top1: float
    wall: list[float]
    cpu: list[float]
    evaluation: float


class EpochTimes(Callback):
    """Takes the time of each epoch of fovea's run, without its validation."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Begin."""
        self._look(module, -1)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """End; a validation is what follows the last step of an epoch."""
        self._look(module, 1)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Go on."""
        self._look(module, -1, add=True)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """End."""
        self._look(module, 1)

    def _look(self, module: Any, sign: int, add: bool = False) -> None:
        now = plain.clocks(module.device.type == "cuda")
        for times, clock in zip((self.wall, self.cpu), now, strict=True):
            if sign < 0 and not add:
                times.append(0.0)
            times[-1] += sign * clock


def main() -> None:
    """Run the comparison and print it."""
    options = parse()
    quiet()
    torch.set_num_threads(options.threads)
    runs: dict[str, list[Run]] = {"plain script": [], "fovea": []}
    with tempfile.TemporaryDirectory() as folder:
        first = experiment(options, 0, folder)
        images = images_of(first)
        print(describe(options, images), flush=True)
        for seed in range(options.seeds):
            turns = list(runs) if seed % 2 == 0 else list(runs)[::-1]
            for name in turns:
                gc.collect()
                if name == "fovea":
                    run = run_fovea(experiment(options, seed, folder))
                else:
                    run = run_plain(options, images, seed)
                runs[name].append(run)
                print(f"seed {seed}  {name:12}  {line(run)}", flush=True)
    print("\n".join(table(runs)))


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--root", required=True, help="CIFAR-10, as data.root of data=cifar10 takes it")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--epochs", type=float, default=9.9)
    add("--images", type=int, help="training images; all where it is left out")
    add("--batch-size", type=int, default=1024, help="the rate changes in proportion")
    add("--width", type=float, default=1.0, help="factor on the channels")
    add("--seeds", type=int, default=3)
    add("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU. Shorten it for the CPU: see --help")
    if options.images is not None and options.images < max(options.batch_size, CLASSES):
        parser.error(f"--images {options.images}: less than a batch of {options.batch_size}")
    if min(options.epochs, options.width, options.seeds, options.threads) <= 0:
        parser.error("--epochs, --width, --seeds and --threads must be above 0")
    return options


def quiet() -> None:
    """Leave out what Lightning and fovea say of each run."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "fovea"):
        logging.getLogger(name).setLevel(logging.ERROR)


def widths(options: argparse.Namespace) -> list[int]:
    """Return the channels of the three groups."""
    return [max(1, round(options.width * channels)) for channels in (64, 256, 256)]


def steps(options: argparse.Namespace, images: int) -> int:
    """Return the optimiser steps of a run."""
    return math.ceil(images // options.batch_size * options.epochs)


def experiment(options: argparse.Namespace, seed: int, folder: str) -> Experiment:
    """Return what ``python src/train.py experiment=cifar10_speedrun`` would build."""
    words = [
        "experiment=cifar10_speedrun", f"data.root={options.root}", f"seed={seed}",
        f"data.batch_size={options.batch_size}", f"optimizer.lr={1.5 * options.batch_size / 1024}",
        f"model.widths=[{','.join(map(str, widths(options)))}]", "logger=none",
        f"trainer.max_epochs={math.ceil(options.epochs)}", f"paths.outputs={folder}",
        f"trainer={'cpu' if options.device == 'cpu' else 'default'}", "trainer.devices=1",
    ]  # fmt: skip
    if options.images is not None:
        words.append(f"data.limit_per_class={options.images // CLASSES}")
    total = steps(options, build_data(compose(words)).split_sizes["train"])
    words += [f"trainer.max_steps={total}", f"scheduler.warmup_steps={int(0.23 * total)}"]
    cfg = compose(words)
    Path(cfg.paths.run).mkdir(parents=True)
    return build(cfg)


def images_of(made: Experiment) -> Images:
    """Return what fovea holds in memory, for the plain script."""
    held = {}
    for name, loader in (
        ("train", made.data.train_dataloader()),
        ("test", made.data.dataloader("test")),
    ):
        assert isinstance(loader, ResidentLoader)
        held[name] = loader.images.permute(0, 3, 1, 2), loader.dataset.labels
    return Images(*held["train"], *held["test"])


def run_fovea(made: Experiment) -> Run:
    """Train as a user would, and judge the weights of the last step."""
    times = EpochTimes()
    made.trainer.callbacks.append(times)  # type: ignore[attr-defined]
    made.trainer.fit(made.task, datamodule=made.data)
    made.data.views = made.views
    found = predict_split(made.task, made.data, made.trainer, "test")
    assert found is not None
    return Run(found.about["metrics"]["test/top1"], times.wall, times.cpu, found.about["seconds"])


def run_plain(options: argparse.Namespace, images: Images, seed: int) -> Run:
    """Train and judge by the plain script."""
    torch.manual_seed(seed)
    device = torch.device(options.device)
    net = plain.Net(widths(options)).to(device, memory_format=torch.channels_last)
    dtype = torch.float32
    if device.type == "cuda":  # as the source has it: half precision but for BatchNorm
        dtype = net.half().linear.weight.dtype
        for module in net.modules():
            if isinstance(module, plain.Norm):
                module.float()
    train = plain.normalize(images.train.to(device), dtype)
    chosen = torch.linspace(0, len(train) - 1, min(WHITENING, len(train))).long()
    net.set_whitening(train[chosen])
    source = torch.Generator().manual_seed(seed)
    loader = plain.Loader(train, images.train_labels.to(device), options.batch_size, source)
    epochs = [loader] * math.ceil(options.epochs)
    found = plain.train(net, epochs, steps(options, len(train)), options.batch_size)
    began = time.perf_counter()
    logits = plain.predict(net, plain.normalize(images.test.to(device), dtype), views=True)
    hits = (logits.argmax(1).cpu() == images.test_labels).float().mean()
    return Run(float(hits), found.wall, found.cpu, time.perf_counter() - began)


def describe(options: argparse.Namespace, images: Images) -> str:
    """Return what is compared, in words."""
    count = len(images.train)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    return (
        f"{count:,} training images, {len(images.test):,} test images; widths {widths(options)}; "
        f"{steps(options, count)} steps of {options.batch_size} images in {options.epochs:g} epochs"
        f"; {name}, {options.threads} threads"
    )


def line(run: Run) -> str:
    """Return the numbers of one run."""
    return (
        f"test top-1 {100 * run.top1:.2f} %  epoch {statistics.median(run.wall):.2f} s, "
        f"{statistics.median(run.cpu):.2f} s CPU  all epochs {sum(run.wall):.2f} s  "
        f"evaluation {run.evaluation:.2f} s"
    )


def table(runs: dict[str, list[Run]]) -> list[str]:
    """Return the lines of the comparison; ratios are taken within a seed and epoch."""
    lines = [
        "",
        "| | test top-1, mean | std over seeds | epoch, median | CPU | whole run, mean |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in runs.items():
        scores = [100 * run.top1 for run in found]
        spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
        wall = statistics.median(second for run in found for second in run.wall)
        cpu = statistics.median(second for run in found for second in run.cpu)
        whole = statistics.mean(sum(run.wall) + run.evaluation for run in found)
        lines.append(
            f"| {name} | {statistics.mean(scores):.2f} % | {spread} | {wall:.2f} s | {cpu:.2f} s "
            f"| {whole:.2f} s |"
        )
    pairs = list(zip(runs["fovea"], runs["plain script"], strict=True))
    for kind in ("wall", "cpu"):
        ratios = [
            ours / theirs
            for one, other in pairs
            for ours, theirs in zip(getattr(one, kind), getattr(other, kind), strict=True)
        ]
        lines.append(
            f"fovea / plain script, {kind} time of an epoch: median "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    apart = [100 * (one.top1 - other.top1) for one, other in pairs]
    error = f" +- {statistics.stdev(apart) / math.sqrt(len(apart)):.2f}" if len(apart) > 1 else ""
    lines.append(f"fovea - plain script, test top-1: {statistics.mean(apart):+.2f}{error} points")
    return lines


if __name__ == "__main__":
    main()
