"""What keeps the ranks of a run equal, and a run equal to the same run resumed."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def can_rewrap(strategy: Strategy) -> bool:
    """Return whether the set of trainable parameters may change while ``strategy`` trains."""
    return isinstance(strategy, SingleDeviceStrategy | DDPStrategy)


def rewrap(trainer: lightning.Trainer) -> None:
    """Let DistributedDataParallel see which parameters need a gradient now.

    DDP decides when it wraps a module which gradients it will reduce. A parameter that is thawed
    later gets a local gradient on every rank, and the ranks drift apart without a word; one that is
    frozen later makes it wait for a gradient that never comes. Gradients must have been set to
    None, since they may be views into the old wrapper's buckets.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = trainer.lightning_module
        gc.collect()  # the old reducer's hooks on the parameters go when it goes, not before
        strategy.configure_ddp()
        sum_in_fixed_order(strategy)


def sum_in_fixed_order(strategy: Strategy) -> None:
    """Let a new wrapper on CPUs add up gradients in an order that never depends on its age.

    In a wrapper's first step DDP reduces all gradients as one array, from then on in groups. Of
    more than two numbers, a number's place in its array decides in which order the ranks' are
    added: the first step after a resume would be rounded differently than in the uncut run.
    """
    model = strategy.model
    if isinstance(model, DistributedDataParallel) and strategy.root_device.type == "cpu":
        # A lambda, since DDP does not understand annotations that are text.
        model.register_comm_hook(None, lambda _, bucket: _average_each(bucket))


def _average_each(bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """Return the mean over all ranks of the gradients in ``bucket``, each reduced by itself."""
    average = bucket.buffer().div_(torch.distributed.get_world_size())
    sums = [torch.distributed.all_reduce(part, async_op=True) for part in bucket.gradients()]
    done = torch.futures.collect_all([work.get_future() for work in sums])
    return done.then(lambda _: average)


def named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield names and parameters, without what FSDP's wrapping adds to the names."""
    for name, parameter in module.named_parameters():
        yield name.replace("_fsdp_wrapped_module.", ""), parameter


def set_trainable(module: nn.Module, names: frozenset[str]) -> bool:
    """Set ``requires_grad`` on the parameters called ``names`` only; return if one changed."""
    changed = False
    for name, parameter in named_parameters(module):
        if parameter.requires_grad != (name in names):
            parameter.requires_grad_(name in names)
            parameter.grad = None
            changed = True
    return changed


def norms_with_statistics(module: nn.Module) -> list[nn.Module]:
    """Return the layers in ``module`` that keep running statistics (BatchNorm and its kin)."""
    return [m for m in module.modules() if getattr(m, "running_mean", None) is not None]


def hold_frozen_norms(module: nn.Module) -> None:
    """Put norm layers with running statistics in eval mode where they are frozen.

    A layer is frozen if none of its parameters trains; one without parameters if none of those of
    the innermost module around it that has any does.
    """
    frozen: dict[str, bool] = {}
    for name, child in module.named_modules():
        parameters = list(child.parameters())
        around = frozen.get(name.rpartition(".")[0], False)
        frozen[name] = not any(p.requires_grad for p in parameters) if parameters else around
        if frozen[name] and getattr(child, "running_mean", None) is not None:
            child.eval()


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Set the running statistics that train to their mean over all processes.

    DDP copies those of rank 0 at the next forward pass: then the other ranks' images never count,
    and between an optimiser step and that pass (where weight averaging, checkpoints and the end of
    a run look at them) ranks disagree. Frozen statistics are not touched: a mean of three equal
    numbers need not be that number.
    """
    buffers: list[Tensor] = []
    for norm in norms_with_statistics(module):
        if norm.training:
            buffers += [norm.running_mean, norm.running_var]  # type: ignore[list-item]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def seed_step(seed: int, epoch: int, batch: int, rank: int, device: torch.device) -> None:
    """Seed torch so that dropout and the like in this step depend on these numbers alone.

    A run that is resumed then draws what the uncut run would have drawn, though no generator's
    state is stored.
    """
    key = f"{seed},{epoch},{batch},{rank}".encode()
    number = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little")
    if device.type == "cpu":
        # For each kind of device that was never used `torch.manual_seed` writes down the call stack
        # in case it will be: a millisecond and more, at each step.
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)
