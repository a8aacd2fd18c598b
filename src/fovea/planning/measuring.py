"""What a training step takes, found with tensors that have shapes and no values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from fovea.judging.cost import count_flops, counting_flops
from fovea.tasks import Task, replicas
from fovea.types import Batch

_FEW = 2  # one image will not do for BatchNorm


class StepCost(NamedTuple):
    """What an image and a micro-batch take.

    Attributes:
        flops: forward and backward, of one image; a multiply-add is two.
        activations: bytes that the forward pass of the micro-batch keeps for the backward pass.
    """

    flops: int
    activations: int


def measure_step(
    task: Task,
    image_shape: tuple[int, int, int],
    size: int,
    trainable: frozenset[str],
    *,
    soft_targets: bool = False,
    half: bool = False,
) -> StepCost:
    """Return what a step of ``task`` takes; ``task`` itself is left alone.

    Operations are those that `count_flops` counts, in both directions, and only those that a step
    makes: frozen stages at the bottom have no backward pass.

    Args:
        task: on the CPU.
        image_shape: (C, H, W).
        size: images of a micro-batch.
        trainable: names of the parameters that train.
        soft_targets: whether labels are mixed.
        half: whether the forward pass runs in bfloat16 or float16 by autocast.
    """

    def step(fake: Task, count: int) -> Tensor:
        batch = _batch(task, image_shape, count, soft_targets)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return fake.training_loss(batch)

    with _fake(task, trainable) as fake:
        with counting_flops() as counter:
            step(fake, _FEW).backward()
        flops = counter.get_total_flops() // _FEW
        fake.zero_grad()
        with saving(fake) as saved:
            step(fake, size)
        activations = sum(saved.values())
    return StepCost(flops, activations)


def forward_flops(task: Task, image_shape: tuple[int, int, int]) -> int:
    """Return the operations that ``task`` makes of one image in evaluation."""
    with _fake(task, frozenset()) as fake:
        return count_flops(fake, image_shape)


@contextmanager
def saving(module: nn.Module) -> Iterator[dict[int, int]]:
    """Count the bytes that forward passes inside keep for the backward pass, by storage.

    Parameters and buffers are not among them. Of real tensors as well as of fake ones.
    """
    own = [*module.parameters(), *module.buffers()]
    known = {tensor.untyped_storage()._cdata for tensor in own}
    saved: dict[int, int] = {}
    held: list[Any] = []  # so that no storage takes the place of another one

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage.nbytes()
            held.append(storage)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


@contextmanager
def _fake(task: Task, trainable: frozenset[str]) -> Iterator[Task]:
    """Yield a copy of ``task`` without values, in training mode; tensors made inside have none."""
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        fake = copy.deepcopy(task).train()
    replicas.set_trainable(fake, trainable)
    with mode, torch.compiler.set_stance("force_eager"):
        yield fake


def _batch(task: Task, shape: tuple[int, int, int], count: int, soft_targets: bool) -> Batch:
    """Return a batch as training gets it."""
    images = torch.zeros(count, *shape).contiguous(memory_format=torch.channels_last)
    zeros = torch.zeros(count, dtype=torch.int64)
    targets = torch.zeros(count, len(task.class_names)) if soft_targets else None
    return Batch(images, zeros, zeros, targets, zeros)


def optimizer_bytes(make_optimizer: Callable[..., Optimizer], parameters: list[Tensor]) -> int:
    """Return the bytes of the optimiser's state after its first step.

    Args:
        make_optimizer: parameters -> optimiser.
        parameters: those that train in some phase.
    """
    try:
        return _state_bytes(make_optimizer, parameters, "meta")
    except (NotImplementedError, RuntimeError):  # it looks at values
        return _state_bytes(make_optimizer, parameters, "cpu")


def _state_bytes(
    make_optimizer: Callable[..., Optimizer], parameters: list[Tensor], device: str
) -> int:
    stand_ins = [nn.Parameter(torch.zeros_like(p, device=device)) for p in parameters]
    for stand_in in stand_ins:
        stand_in.grad = torch.zeros_like(stand_in)
    optimizer = make_optimizer(stand_ins)
    optimizer.step()
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, Tensor))
