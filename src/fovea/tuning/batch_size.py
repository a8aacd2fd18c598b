"""``tune.batch_size=true``: what fits on a device, while the global batch stays as it is."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from fovea.data import ImageDataModule
from fovea.data.resident import free_memory
from fovea.experiment import Experiment, keeps_average
from fovea.machine.accumulation import largest_micro_batch
from fovea.planning.measuring import measure_step, optimizer_bytes
from fovea.tasks import Task

log = logging.getLogger("fovea")

ROOM = 0.9
"""Share of a machine's free memory that is counted on: kernels and loaders need some as well."""


def leave_accumulation_open(cfg: DictConfig) -> None:
    """Let the run find ``trainer.accumulate_grad_batches``, as ``auto`` does; tell if it was set.

    Args:
        cfg: of the train command; changed in place.
    """
    given = cfg.trainer.accumulate_grad_batches
    if given not in {1, "auto"}:
        log.info("tune.batch_size: trainer.accumulate_grad_batches %s -> auto", given)
    cfg.trainer.accumulate_grad_batches = "auto"


def describe_largest(cfg: DictConfig, experiment: Experiment) -> tuple[str, str]:
    """Return a row for the summary: the most images that a device takes at a time.

    A GPU tries it. On a CPU, where a process that takes too much is killed, it is counted from what
    the forward pass keeps and from the memory that is free.

    Args:
        cfg: that ``experiment`` was built from.
        experiment: before its first step; left as it is.
    """
    task, data, trainer = experiment.task, experiment.data, experiment.trainer
    averaged = keeps_average(cfg)
    if trainer.strategy.root_device.type == "cpu":
        free = ROOM * free_memory() / trainer.num_devices
        largest, how = largest_by_count(task, data, free, averaged), "about, by count"
    else:
        largest = largest_micro_batch(task, data, trainer, cfg.trainer.max_epochs, averaged)
        how = "tried"
    share = data.per_device_batch(trainer.world_size, trainer.accumulate_grad_batches)
    fits = f"{max(largest, share):,} images a device at a time"
    if largest >= data.split_sizes["train"]:
        fits = "all of train fits on a device"
    stays = f"data.batch_size={data.batch_size} and with it the recipe stay"
    return "largest batch", f"{fits} ({how}), the run takes {share}; {stays}"


def largest_by_count(task: Task, data: ImageDataModule, free: float, averaged: bool) -> int:
    """Return how many images a step can take in ``free`` bytes, at most those of train.

    Args:
        task: on the CPU; its parameters are in memory already.
        data: prepared.
        free: bytes.
        averaged: whether averaged weights are kept beside the weights.
    """
    parameters = list(task.parameters())
    assert task.make_optimizer is not None
    weights = sum(p.numel() * p.element_size() for p in parameters)
    names = frozenset(name for name, _ in task.named_parameters())
    mixed = data.augment.batch_mix(data.num_classes) is not None
    two, four = (
        measure_step(task, data.image_shape, size, names, soft_targets=mixed).activations
        for size in (2, 4)
    )
    each = (four - two) / 2
    fixed = weights * (2 if averaged else 1) + optimizer_bytes(task.make_optimizer, [*parameters])
    return min(int((free - fixed - (two - 2 * each)) / each), data.split_sizes["train"])
