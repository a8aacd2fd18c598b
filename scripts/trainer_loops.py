"""The ways in which `benchmark_trainer.py` trains one and the same network on the same batches."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fovea.catalog import config_dir
from fovea.data.module import ImageDataModule
from fovea.data.sources import MemorySource
from fovea.data.splits import Found, Split
from fovea.experiment import Experiment, build, compose
from fovea.models import Backbone
from fovea.types import Preprocessing

CLASSES, SIDE, BATCH, STEPS_AN_EPOCH = 10, 32, 16, 512
BLOCK = 10  # trainer.log_every_n_steps
LR, BETAS, WEIGHT_DECAY = 2e-3, (0.9, 0.999), 0.05  # those of conf/optimizer/adamw.yaml
MEAN = STD = 0.5


class NoiseDataModule(ImageDataModule):
    """Random images of 3 x 32 x 32 pixels in memory, in 10 classes: one epoch of 512 steps."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)

    def _find(self) -> Found:
        draws = torch.Generator().manual_seed(0)
        splits = {}
        for name, count in (("train", BATCH * STEPS_AN_EPOCH), ("val", BATCH)):
            shape = (count, 3, SIDE, SIDE)
            images = torch.randint(256, shape, dtype=torch.uint8, generator=draws)
            labels = torch.arange(count) % CLASSES
            splits[name] = Split.whole(MemorySource(images, "noise"), labels)
        names = [str(number) for number in range(CLASSES)]
        return Found(class_names=names, splits=splits, undivided=False, layout="noise")

    def _default_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=SIDE, resize=SIDE, mean=(MEAN,) * 3, std=(STD,) * 3)


class Convs(Backbone):
    """Features (B, 2 * width) of images (B, C, H, W), by three convolutions with BatchNorm."""

    def __init__(self, in_channels: int, image_size: int, width: int) -> None:
        def block(c_in: int, c_out: int) -> nn.Sequential:
            conv = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())

        blocks = [block(in_channels, width), block(width, width), block(width, 2 * width)]
        net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        stages = {"stem": ["net.0"], "middle": ["net.1"], "last": ["net.2"]}
        sizes = {"num_features": 2 * width, "image_size": image_size}
        super().__init__(net, stages=stages, name="convs", **sizes)


def convs(width: int) -> list[str]:
    """Return the overrides that choose `Convs`."""
    base = yaml.safe_load((config_dir() / "model" / "_base.yaml").read_text())
    unused = [f"~model.{key}" for key in base if key not in ("defaults", "_target_")]
    return [
        "model=resnet18",
        *unused,
        "model._target_=trainer_loops.Convs",
        f"+model.width={width}",
    ]


@dataclass
class Measured:
    """What the measured steps of one training took.

    Attributes:
        wall: seconds a step.
        cpu: seconds of this process's processor time a step.
        losses: of each measured step, (steps,) float32; empty unless asked for.
    """

    wall: float
    cpu: float
    losses: Tensor


class Stopwatch(Callback):
    """Takes the time of blocks of steps from ``first`` to ``last``, between beginnings of steps.

    A step's time is the median over the blocks: what else the machine did in some does not count.
    A block is as long as the interval between two logged steps, of which it so has one.

    Args:
        first: step from 0, the ones before being warm-up.
        last: step that is no longer measured, a multiple of `BLOCK` steps later.
        keep_losses: whether `losses` is filled. Not while the time is taken: it costs some.
    """

    def __init__(self, first: int, last: int, keep_losses: bool = False) -> None:
        self.first, self.last, self.keep_losses = first, last, keep_losses
        self.times: list[tuple[float, float]] = []
        self.losses: list[Tensor] = []

    def on_train_batch_start(self, *args: Any) -> None:
        """Look at the clocks; leave after the last look, for an epoch's end is no step."""
        self.begin(args[-1])
        if args[-1] == self.last:
            raise Enough

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        """Keep the loss."""
        if self.keep_losses:
            self.losses.append(outputs["loss"].detach().clone())

    def begin(self, step: int) -> None:
        """Look at the clocks where a block begins or ends."""
        if step >= self.first and (step - self.first) % BLOCK == 0:
            self.times.append((time.perf_counter(), time.process_time()))

    def result(self) -> Measured:
        """Return the seconds a step."""
        wall, cpu = torch.tensor(self.times, dtype=torch.float64).diff(dim=0).median(dim=0).values
        losses = torch.stack(self.losses) if self.losses else torch.empty(0)
        return Measured(float(wall) / BLOCK, float(cpu) / BLOCK, losses)


def build_fovea(model: list[str], overrides: list[str], folder: Path) -> Experiment:
    """Return what ``python src/train.py`` would build: one epoch on `NoiseDataModule`."""
    words = [
        *model, "data=digits", "data._target_=trainer_loops.NoiseDataModule",
        "allow_targets=[trainer_loops]", f"data.batch_size={BATCH}", "data.val_fraction=0.1",
        "data.in_memory=true", "augment=none", "trainer=cpu", "trainer.max_epochs=1",
        "scheduler.warmup_epochs=0", f"paths.outputs={folder}", *overrides,
    ]  # fmt: skip
    cfg = compose(words)
    Path(cfg.paths.run).mkdir(parents=True)
    return build(cfg)


def run_fovea(experiment: Experiment, watch: Stopwatch, drop: tuple[str, ...] = ()) -> Measured:
    """Train by fovea's trainer, the callbacks whose classes are named in ``drop`` left out.

    The epoch is cut off when ``watch`` has all it wants: its end is no step.
    """
    trainer: Any = experiment.trainer
    trainer.callbacks = [c for c in trainer.callbacks if type(c).__name__ not in drop]
    trainer.callbacks.append(watch)
    if "MetricsCSV" in drop:
        trainer.loggers = []
    with guard_left_out() if "NonFiniteGuard" in drop else no_change(), suppress(Enough):
        trainer.fit(experiment.task, datamodule=experiment.data)
    return watch.result()


class Enough(Exception):  # noqa: N818 - no error: all was measured
    """Raised by `Stopwatch`."""


@contextmanager
def no_change() -> Iterator[None]:
    """Do nothing."""
    yield


@contextmanager
def guard_left_out() -> Iterator[None]:
    """Keep the task from adding the guard that every training has."""
    from fovea.tasks import Task

    own = Task.configure_callbacks
    Task.configure_callbacks = lambda self: []  # type: ignore[method-assign]
    try:
        yield
    finally:
        Task.configure_callbacks = own  # type: ignore[method-assign]


@dataclass
class Prepared:
    """What plain torch and Lightning alone need: network, images, the order of the epoch."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    batches: list[Tensor]

    @classmethod
    def of(cls, experiment: Experiment) -> Prepared:
        """Return the parts of ``experiment``, before it has trained."""
        task, loader = experiment.task, experiment.data.train_dataloader()
        network = nn.Sequential(copy.deepcopy(task.backbone), copy.deepcopy(task.head))
        network.to(memory_format=torch.channels_last)
        batches = [keys.indices for keys in loader.batch_sampler.batches()]  # type: ignore[union-attr]
        images = loader.images  # type: ignore[union-attr]
        return cls(network.train(), images, loader.dataset.labels, batches)  # type: ignore[arg-type]

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW, without decay on biases and norms."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised images (B, C, H, W) float32, channels_last, and labels (B,)."""
        pixels = self.images.index_select(0, indices).float()
        return pixels.mul_(1 / (255 * STD)).sub_(MEAN / STD).permute(0, 3, 1, 2), self.labels[
            indices
        ]


def cosine(step: int) -> float:
    """Return the factor on the rate at ``step`` of the epoch."""
    return (1 + math.cos(math.pi * step / STEPS_AN_EPOCH)) / 2


def run_bare(parts: Prepared, watch: Stopwatch) -> Measured:
    """Train by a plain loop: what nobody can do without."""
    optimizer = parts.optimizer()
    for step, indices in enumerate(parts.batches):
        watch.begin(step)
        if step == watch.last:
            break
        images, labels = parts.batch(indices)
        loss = cross_entropy(parts.network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LR * cosine(step)
        optimizer.step()
        if watch.keep_losses:
            watch.losses.append(loss.detach())
    return watch.result()


class Indices:
    """Batches of indices; Lightning would take a list for several loaders."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


class PlainModule(lightning.LightningModule):
    """The same in the fewest lines that Lightning takes."""

    def __init__(self, parts: Prepared, log_loss: bool) -> None:
        super().__init__()
        self.network, self.parts, self.log_loss = parts.network, parts, log_loss

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss."""
        images, labels = self.parts.batch(batch)
        loss = cross_entropy(self.network(images), labels)
        if self.log_loss:
            self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        """Return optimiser and schedule."""
        optimizer = self.parts.optimizer()
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def run_lightning(parts: Prepared, watch: Stopwatch, log_loss: bool = False) -> Measured:
    """Train by Lightning alone: no logger, no checkpoint, and at most one ``self.log`` a step."""
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
    )  # fmt: skip
    with suppress(Enough):
        trainer.fit(PlainModule(parts, log_loss), Indices(parts.batches))
    return watch.result()
