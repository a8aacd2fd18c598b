"""A run that will not be made: its parts, and what is known of them without a step."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from omegaconf import DictConfig
from torch import nn

from fovea.data import ImageDataModule
from fovea.experiment import (
    batch_limit,
    build_model,
    build_task,
    keeps_average,
    preprocessing_of,
    unprepared_data,
)
from fovea.planning.hardware import GPUS, REFERENCES, foretold_speed
from fovea.planning.measuring import optimizer_bytes
from fovea.planning.sizes import find_sizes
from fovea.tasks import Task, replicas

_FULL = {"32-true", "64-true", "32", 32}
_SIZE = {"16-true": 0.5, "bf16-true": 0.5, "64-true": 2.0}


class Phase(NamedTuple):
    """Epochs in which the same parameters train, on images of one size.

    Attributes:
        trainable: names of the parameters.
        side: of the images in pixels.
        epochs: how many.
    """

    trainable: frozenset[str]
    side: int
    epochs: int


class PlannedRun:
    """What a configuration describes, without loaders, weights from elsewhere or a trainer.

    Args:
        cfg: of the train command.

    Attributes:
        count: GPUs in a machine.
        nodes: machines.
        gpu: one of them.
        data: not prepared where it is known by its publication.
        sizes: of the data.
        task: with random weights, on the CPU.
        phases: of the freeze schedule and of progressive resolution, those that the run reaches.
        mixed: whether labels are mixed.
        half: whether most of it is computed in bfloat16 or float16.
        sharded: whether parameters, gradients and optimiser are shared out (FSDP).
        limit: on the micro-batches of an epoch, see `count_steps`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.count: int = cfg.hardware.count or _count(cfg.trainer.devices)
        self.nodes: int = cfg.hardware.nodes or cfg.trainer.num_nodes
        self.gpu = GPUS[cfg.hardware.gpu]
        self.data = unprepared_data(cfg, preprocessing_of(cfg.model))
        self.sizes = find_sizes(self.data)
        names = self.sizes.class_names
        backbone, head, _ = build_model(cfg.model, self.data.image_shape, names, load=False)
        self.task: Task = build_task(cfg, backbone, head, names, self.sizes.class_counts)
        self.phases = _phases(self.task, self.data, cfg.trainer.max_epochs)
        self.mixed = self.data.augment.batch_mix(len(names)) is not None
        self.half = cfg.trainer.precision not in _FULL
        self.sharded = "fsdp" in str(cfg.trainer.strategy).lower()
        self.limit = batch_limit(cfg.trainer)
        self._kept = self._count_kept()

    def _count_kept(self) -> dict[str, int]:
        """Return the bytes of all that outlives a step, before it is shared out."""
        parameters = dict(replicas.named_parameters(self.task))
        scale = _SIZE.get(str(self.cfg.trainer.precision), 1.0)
        sizes = {n: int(p.numel() * p.element_size() * scale) for n, p in parameters.items()}
        trains = frozenset[str]().union(*(phase.trainable for phase in self.phases))
        assert self.task.make_optimizer is not None
        buffers = sum(b.numel() * b.element_size() for b in self.task.backbone.buffers())
        kept = {
            "parameters": sum(sizes.values()),
            "buffers": buffers,
            "gradients": max(sum(sizes[n] for n in p.trainable) for p in self.phases),
            "optimizer": optimizer_bytes(
                self.task.make_optimizer, [parameters[name] for name in sizes if name in trains]
            ),
            "averaged": 0,
        }
        if keeps_average(self.cfg):
            kept["averaged"] = kept["parameters"] + buffers
        return kept

    def state_bytes(self) -> dict[str, int]:
        """Return the bytes that one GPU holds of parameters and all that goes with them."""
        kept, world = dict(self._kept), self.count * self.nodes
        if self.sharded:
            for name in ("parameters", "gradients", "optimizer"):
                kept[name] = -(-kept[name] // world)
        elif world > 1:
            kept["gradient buckets"] = kept["gradients"]
        return {name: size for name, size in kept.items() if size}

    def checkpoint_bytes(self) -> int:
        """Return the size of a checkpoint: all but gradients, whole even if sharded."""
        return sum(self._kept.values()) - self._kept["gradients"]

    def network(self) -> tuple[int, str]:
        """Return the bytes that each GPU sends in an optimiser step, and in which way.

        A ring's all-reduce of S bytes over N sends 2 (N - 1) / N S from each, a gather or a
        scatter half of it (Patarasuk and Yuan 2009). FSDP gathers the parameters for both passes
        and scatters the gradients.
        """
        world = self.count * self.nodes
        if world == 1:
            return 0, "one GPU"
        if self.sharded:
            sent = 2 * self._kept["parameters"] + self._kept["gradients"]
            return sent * (world - 1) // world, "FSDP: parameters gathered twice, gradients once"
        return 2 * self._kept["gradients"] * (world - 1) // world, "DDP: gradients, ring all-reduce"

    def speed(self) -> tuple[float, str]:
        """Return the FLOP/s that one GPU is expected to make, and why."""
        if self.cfg.hardware.mfu is not None:
            peak = self.gpu.half if self.half else self.gpu.full
            return self.cfg.hardware.mfu * peak, "hardware.mfu"
        kind = kind_of_network(self.task.backbone)
        reference = REFERENCES[kind]
        speed = foretold_speed(self.gpu, reference, not self.half)
        return speed, f"{kind} networks, by {reference.source} ({reference.gpu})"


def _count(devices: Any) -> int:
    """Return how many ``trainer.devices`` are, 1 where that depends on the machine."""
    if isinstance(devices, int):
        return max(devices, 1)
    return 1 if isinstance(devices, str) else len(devices)


def _phases(task: Task, data: ImageDataModule, max_epochs: int) -> list[Phase]:
    freeze = task.freeze_schedule.bind(task.parts(), max_epochs)
    ends = [*freeze.starts[1:], max_epochs]
    return [
        Phase(freeze.trainable(start), side, len(list(epochs)))
        for start, end in zip(freeze.starts, ends, strict=True)
        for side, epochs in groupby(range(start, min(end, max_epochs)), partial(_side, data))
    ]


def _side(data: ImageDataModule, epoch: int) -> int:
    """Return the side of training images in ``epoch``."""
    size = data.image_shape[-1]
    resized = data.augment.resolved_crop(size) == "resized"
    return data.augment.train_size.at(size, epoch) if resized else size


def kind_of_network(backbone: nn.Module) -> str:
    """Return the key of `REFERENCES` that is most like ``backbone``, by the layers it has."""
    modules = list(backbone.modules())
    if any("attention" in type(m).__name__.lower() for m in modules):
        return "transformer"
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d)]
    if any(1 < c.groups == c.in_channels for c in convolutions):
        return "depthwise"
    # Those of before residuals: wide maps through few layers, and large fully connected ones.
    linear = any(isinstance(m, nn.Linear) and m.in_features > 4096 for m in modules)
    return "plain" if linear else "convolutional"
