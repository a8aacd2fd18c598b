"""How many micro-batches a step has to be cut into so that it fits into memory: by trying."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fovea.data import ImageDataModule
from fovea.errors import FoveaError
from fovea.machine.out_of_memory import accumulations, is_out_of_memory
from fovea.tasks import Task, replicas
from fovea.types import Batch

_MARGIN = 0.05
"""Share of a GPU's memory left free, since a long run's allocations leave gaps."""


def find_accumulation(
    task: Task, data: ImageDataModule, trainer: Trainer, max_epochs: int, averaged: bool
) -> int:
    """Return the least number of micro-batches at which a training step fits, 1 on most CPUs.

    Tried with a copy of ``task`` on this rank's device: forward, backward and optimiser, with all
    that trains in any phase of the freeze schedule. Nothing is left of it: weights, statistics,
    optimiser and random numbers are those before.

    Args:
        task: on the CPU, untrained.
        data: prepared.
        trainer: gives device, number of devices and precision.
        max_epochs: of the run, for the freeze schedule.
        averaged: whether averaged weights are kept beside the weights.

    Raises:
        FoveaError: not even one image at a time fits.
    """
    device = trainer.strategy.root_device
    world = trainer.world_size
    devices = [device] if device.type == "cuda" else []
    for number in accumulations(data.batch_size, world):
        size = data.batch_size // (world * number)
        with torch.random.fork_rng(devices=devices):
            fits = _fits(lambda size=size: _step(task, data, trainer, size, max_epochs, averaged))  # type: ignore[misc]
        gc.collect()
        if devices:
            torch.cuda.empty_cache()
        if fits:
            return number
    raise FoveaError(
        f"Not even one image at a time fits into the memory of {device}. Use a smaller network, "
        "smaller images (data.image_size=…), or a device with more memory."
    )


def largest_micro_batch(
    task: Task, data: ImageDataModule, trainer: Trainer, max_epochs: int, averaged: bool
) -> int:
    """Return the most images at a time with which a training step fits, to a sixteenth.

    Tried as `find_accumulation` does, upwards from the run's own micro-batch to all that train
    holds; leaves as little behind. For GPUs: a CPU that runs out of memory ends the process.

    Args:
        task: on the CPU, untrained.
        data: prepared.
        trainer: whose micro-batch fits.
        max_epochs: of the run, for the freeze schedule.
        averaged: whether averaged weights are kept beside the weights.
    """
    device = trainer.strategy.root_device
    devices = [device] if device.type == "cuda" else []

    def fits(size: int) -> bool:
        with torch.random.fork_rng(devices=devices):
            fit = _fits(lambda: _step(task, data, trainer, size, max_epochs, averaged))
        gc.collect()
        if devices:
            torch.cuda.empty_cache()
        return fit

    most = data.split_sizes["train"]
    low = data.per_device_batch(trainer.world_size, trainer.accumulate_grad_batches)
    high = 2 * low
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fits(step: Callable[[], None]) -> bool:
    try:
        step()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False  # the exception, and the tensors that its traceback holds, go with this frame
    return True


def _step(
    task: Task, data: ImageDataModule, trainer: Trainer, size: int, max_epochs: int, averaged: bool
) -> None:
    """Make two steps, as the state of the optimiser comes with the first."""
    device = trainer.strategy.root_device
    tried = copy.deepcopy(task)
    if tried.channels_last:
        tried.backbone.to(memory_format=torch.channels_last)
    tried = trainer.precision_plugin.convert_module(tried).to(device).train()  # type: ignore[assignment]
    tried.trainer = trainer
    freeze = tried.freeze_schedule.bind(tried.parts(), max_epochs)
    trains = frozenset[str]().union(*(freeze.trainable(epoch) for epoch in freeze.starts))
    replicas.set_trainable(tried, trains)
    parameters = [p for p in tried.parameters() if p.requires_grad]
    assert tried.make_optimizer is not None
    optimizer = tried.make_optimizer(parameters)
    held: list[Any] = []
    if trainer.world_size > 1:  # the buckets in which ranks exchange gradients
        held += [torch.empty_like(p) for p in parameters]
    if averaged:
        held += [torch.empty_like(p) for p in tried.parameters()]
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        held.append(torch.empty(int(_MARGIN * total), dtype=torch.uint8, device=device))
    for _ in range(2):
        with trainer.precision_plugin.forward_context():
            loss = tried.training_loss(_batch(data, size, device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _batch(data: ImageDataModule, size: int, device: torch.device) -> Batch:
    """Return a batch as training gets it, of black images."""
    zeros = torch.zeros(size, dtype=torch.int64, device=device)
    images = torch.zeros(size, *data.image_shape, dtype=torch.uint8, device=device)
    batch = data.on_after_batch_transfer(Batch(images, zeros, zeros, seeds=zeros), 0)
    if data.augment.batch_mix(data.num_classes) is None:
        return batch
    return batch._replace(targets=torch.full((size, data.num_classes), 0.1, device=device))


class AgreedAccumulation(Callback):
    """Makes the ranks take the largest accumulation that one of them found.

    Args:
        tell: is called on all ranks with the number, if it is not the one that was found here.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.tell = tell

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Agree, before the loaders are made."""
        if stage != "fit" or trainer.world_size == 1:
            return
        found = torch.tensor(trainer.accumulate_grad_batches, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        if int(found) != trainer.accumulate_grad_batches:
            trainer.accumulate_grad_batches = int(found)
            self.tell(int(found))
