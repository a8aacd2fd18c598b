"""A plain training loop, and what its parts share; nothing of fovea in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    LRScheduler,
)

Micro = dict[str, Any]
"""A micro-batch: ``images``, ``labels``, ``targets`` or None, and torch's ``draws`` for it."""


class Loop:
    """A plain training loop. Subclasses make the optimiser and say what happens when.

    Args:
        net: with the weights it begins with.
        epochs: of the run.
        steps: of an epoch.
    """

    optimizer: Optimizer
    criterion: Callable[[Tensor, Tensor], Tensor]
    average: nn.Module | None = None
    """What holds the averaged weights under ``module``."""

    def __init__(self, net: nn.Module, epochs: int, steps: int) -> None:
        self.net, self.epochs, self.steps = net, epochs, steps

    def begin_epoch(self, epoch: int) -> None:
        """Freeze, or thaw."""

    def begin_step(self, epoch: int, step: int) -> None:
        """Set the rates, where they change by step (the number within the epoch)."""

    def clip(self) -> None:
        """Clip the gradients."""

    def end_step(self, epoch: int, step: int) -> None:
        """Average the weights."""

    def end_epoch(self, epoch: int) -> None:
        """Set the rates, where they change by epoch."""

    def target(self, micro: Micro) -> Tensor:
        """Return what the criterion wants: labels, or what mixing made of them."""
        return micro["labels"] if micro["targets"] is None else micro["targets"]

    def step(self, epoch: int, step: int, ranks: Sequence[Sequence[Micro]]) -> float:
        """Make one optimiser step and return the loss over the global batch.

        ``ranks`` are the micro-batches of each. Norms see one micro-batch at a time; each rank has
        running statistics of its own, which are averaged after the step. Gradients are added up
        within a rank and then over ranks: in networks with norms of so few images, rounding in
        another order grows a thousandfold within twenty steps.
        """
        self.begin_step(epoch, step)
        before, after, gradients, losses = statistics(self.net), [], [], []
        for micros in ranks:
            restore(self.net, before)
            self.optimizer.zero_grad()
            for micro in micros:
                torch.set_rng_state(micro["draws"])
                loss = self.criterion(self.net(micro["images"]), self.target(micro))
                (loss / len(micros)).backward()
                losses.append(float(loss.detach()))
            after.append(statistics(self.net))
            gradients.append([p.grad for p in self.trained()])
        restore(self.net, [sum(each) / len(ranks) for each in zip(*after, strict=True)])
        for p, *each in zip(self.trained(), *gradients, strict=True):
            p.grad = sum(gradient / len(ranks) for gradient in each)
        self.clip()
        self.optimizer.step()
        self.end_step(epoch, step)
        return sum(losses) / len(losses)

    def trained(self) -> list[nn.Parameter]:
        """Return what is not frozen."""
        return [p for p in self.net.parameters() if p.requires_grad]


def statistics(net: nn.Module) -> list[Tensor]:
    """Return copies of all running means and variances."""
    return [b.clone() for name, b in net.named_buffers() if name.split(".")[-1].startswith("run")]


def restore(net: nn.Module, values: list[Tensor]) -> None:
    """Put running means and variances back."""
    buffers = [b for name, b in net.named_buffers() if name.split(".")[-1].startswith("run")]
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every group, times the group's ``lr_scale`` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def kernels_decay(net: nn.Module, weight_decay: float, spared: Sequence[str] = ()) -> list[dict]:
    """Return two groups: what has one dimension, is a bias or is ``spared``; and the rest.

    timm ``param_groups_weight_decay``; DeiT and ConvNeXt ``get_parameter_groups``.
    """
    plain = {n for n, p in net.named_parameters() if p.ndim <= 1 or n.endswith(".bias")}
    plain |= {n for n, _ in net.named_parameters() if n.split(".")[-1] in spared}
    named = dict(net.named_parameters())
    groups = [
        {"params": [named[n] for n in named if n not in plain], "weight_decay": weight_decay},
        {"params": [named[n] for n in named if n in plain], "weight_decay": 0.0},
    ]
    return in_order(net, groups)


def in_order(net: nn.Module, groups: list[dict]) -> list[dict]:
    """Return groups by their first parameter: the order in which a norm over all is summed."""
    places = {id(p): place for place, p in enumerate(net.parameters())}
    return sorted(groups, key=lambda group: places[id(group["params"][0])])


def rates_of(optimizer: Optimizer, scheduler: LRScheduler, count: int) -> list[float]:
    """Return the rates of so many steps of a scheduler."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def merged(micros: Sequence[Micro]) -> Micro:
    """Return one batch of several micro-batches."""
    whole = copy.copy(micros[0])
    for key in ("images", "labels"):
        whole[key] = torch.cat([micro[key] for micro in micros])
    if whole["targets"] is not None:
        whole["targets"] = torch.cat([micro["targets"] for micro in micros])
    return whole
