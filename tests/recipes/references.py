"""Plain training loops, each written from what a recipe's reference does; nothing of fovea in them.

The constants are those of the reference's own defaults and commands. Only the lengths (epochs,
warm-up, milestones) are a toy's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.optim import Lamb
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV2
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import AveragedModel

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


class Torchvision2016(Loop):
    """pytorch/vision references/classification/train.py with its defaults of 2016-2020.

    ``--lr 0.1 --momentum 0.9 --wd 1e-4 --lr-step-size 30 --lr-gamma 0.1``; 30 of 90 epochs.
    """

    lr = 0.1

    def __init__(self, net: nn.Module, epochs: int, steps: int) -> None:
        super().__init__(net, epochs, steps)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = SGD(net.parameters(), lr=self.lr, momentum=0.9, weight_decay=1e-4)
        self.scheduler = StepLR(self.optimizer, step_size=epochs // 3, gamma=0.1)

    def end_epoch(self, epoch: int) -> None:
        self.scheduler.step()


class Torchvision2014(Torchvision2016):
    """The same for AlexNet and VGG without norms: ``--lr 1e-2``."""

    lr = 0.01


class Torchvision2021(Loop):
    """The same script for the weights V2 (issue 3995): warm-up, cosine, soft labels, average.

    ``--lr 0.5 --wd 2e-5 --norm-weight-decay 0 --label-smoothing 0.1 --lr-scheduler
    cosineannealinglr --lr-warmup-epochs 5 --lr-warmup-decay 0.01 --model-ema
    --model-ema-decay 0.99998 --model-ema-steps 32``.
    """

    warmup = 1
    every = 3
    """Instead of 5 epochs, and of 32 steps."""

    def __init__(self, net: nn.Module, epochs: int, steps: int, batch: int) -> None:
        super().__init__(net, epochs, steps)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
        normed = [p for m in norms for p in m.parameters()]
        other = [p for p in net.parameters() if all(p is not n for n in normed)]
        groups = [{"params": normed, "weight_decay": 0.0}, {"params": other, "weight_decay": 2e-5}]
        self.optimizer = SGD(groups, lr=0.5, momentum=0.9)
        rise = LinearLR(self.optimizer, start_factor=0.01, total_iters=self.warmup)
        fall = CosineAnnealingLR(self.optimizer, T_max=epochs - self.warmup)
        self.scheduler = SequentialLR(self.optimizer, [rise, fall], [self.warmup])
        alpha = min(1.0, (1.0 - 0.99998) * batch * self.every / epochs)
        self.average = AveragedModel(
            net, avg_fn=lambda old, new, count: (1 - alpha) * old + alpha * new, use_buffers=True
        )

    def end_step(self, epoch: int, step: int) -> None:
        if step % self.every == 0:
            self.average.update_parameters(self.net)
            if epoch < self.warmup:
                self.average.n_averaged.fill_(0)

    def end_epoch(self, epoch: int) -> None:
        self.scheduler.step()


class StrikesBack(Loop):
    """pytorch-image-models train.py, as "ResNet strikes back" uses it: LAMB, BCE, cosine by epoch.

    Smoothing is done by mixup's targets, as ``Mixup(label_smoothing=...)`` has it.
    """

    warmup = 1

    def __init__(
        self, net: nn.Module, epochs: int, steps: int, *,
        lr: float, weight_decay: float, smoothing: float, threshold: float | None,
    ) -> None:  # fmt: skip
        super().__init__(net, epochs, steps)
        self.smoothing = smoothing
        # Smoothing is in the targets: the loss itself is not asked for it.
        criterion = BinaryCrossEntropy(0.0, threshold, reduction="none")
        self.criterion = lambda logits, targets: criterion(logits, targets).mean(dim=1).mean()
        self.optimizer = Lamb(kernels_decay(net, weight_decay), lr=lr)
        self.scheduler = CosineLRScheduler(
            self.optimizer, t_initial=epochs, lr_min=1e-6, warmup_t=self.warmup,
            warmup_lr_init=1e-4,
        )  # fmt: skip

    def target(self, micro: Micro) -> Tensor:
        return smoothed(micro["targets"], self.smoothing)

    def end_epoch(self, epoch: int) -> None:
        self.scheduler.step(epoch + 1)


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Return (B, K) as timm's ``mixup_target``: the rest of each label is spread evenly."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


class ConvNeXt(Loop):
    """facebookresearch/ConvNeXt main.py: AdamW 4e-3, decay 0.05, min_lr 1e-6, average 0.9999.

    ``cosine_scheduler`` of its utils.py gives the rate of each step, ``create_optimizer`` the
    groups. Layer scales have one dimension there, here three.
    """

    warmup = 1

    def __init__(self, net: nn.Module, epochs: int, steps: int) -> None:
        super().__init__(net, epochs, steps)
        cross_entropy = SoftTargetCrossEntropy()
        self.criterion = lambda logits, targets: cross_entropy(logits, smoothed(targets, 0.1))
        groups = kernels_decay(net, 0.05, spared=["layer_scale"])
        self.optimizer = AdamW(groups, lr=4e-3, betas=(0.9, 0.999), eps=1e-8)
        rise = self.warmup * steps
        left = epochs * steps - rise
        fall = [
            1e-6 + 0.5 * (4e-3 - 1e-6) * (1 + math.cos(math.pi * i / left)) for i in range(left)
        ]
        self.rates = [*np.linspace(0, 4e-3, rise), *fall]
        self.average = ModelEmaV2(net, decay=0.9999)

    def begin_step(self, epoch: int, step: int) -> None:
        set_rate(self.optimizer, self.rates[epoch * self.steps + step])

    def end_step(self, epoch: int, step: int) -> None:
        self.average.update(self.net)


class MaskedAutoencoder(Loop):
    """facebookresearch/mae main_finetune.py: layer decay 0.65, blr 5e-4 x 1024 / 256, decay 0.05.

    Groups of util/lr_decay.py ``param_groups_lrd``, rates of util/lr_sched.py.
    """

    warmup = 1

    def __init__(self, net: nn.Module, epochs: int, steps: int) -> None:
        super().__init__(net, epochs, steps)
        cross_entropy = SoftTargetCrossEntropy()
        self.criterion = lambda logits, targets: cross_entropy(logits, smoothed(targets, 0.1))
        self.lr = 5e-4 * 1024 / 256
        groups = []
        for name, parameter in net.named_parameters():
            spared = parameter.ndim == 1 or name in ("pos_embed", "cls_token")
            scale = 0.65 ** (len(net.blocks) + 1 - self._layer(name))
            decay = 0.0 if spared else 0.05
            groups.append({"params": [parameter], "weight_decay": decay, "lr_scale": scale})
        self.optimizer = AdamW(groups, lr=self.lr)

    def _layer(self, name: str) -> int:
        if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
            return 0
        if name.startswith("blocks"):
            return int(name.split(".")[1]) + 1
        return len(self.net.blocks) + 1

    def begin_step(self, epoch: int, step: int) -> None:
        passed = epoch + step / self.steps
        rate = self.lr * passed / self.warmup
        if passed >= self.warmup:
            share = (passed - self.warmup) / (self.epochs - self.warmup)
            rate = 1e-6 + (self.lr - 1e-6) * 0.5 * (1.0 + math.cos(math.pi * share))
        set_rate(self.optimizer, rate)


class Adam(Optimizer):
    """big_vision/optax.py ``make``: clip, scale_by_adam, x lr, + wd x kernel, x schedule, x -1.

    A group's ``lr`` is that of the step, so base rate times schedule; its ``weight_decay`` is torch
    AdamW's that means the same, wd / base.
    """

    def __init__(self, groups: list[dict], base: float, wd: float) -> None:
        super().__init__(groups, {"lr": base})
        self.base, self.wd, self.count = base, wd, 0

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.count += 1
        for group in self.param_groups:
            wd = self.wd if group["weight_decay"] else 0.0
            for p in group["params"]:
                state = self.state[p]
                first = 0.9 * state.get("first", 0.0) + 0.1 * p.grad
                second = 0.999 * state.get("second", 0.0) + 0.001 * p.grad**2
                state["first"], state["second"] = first, second
                hat = first / (1 - 0.9**self.count)
                update = hat / ((second / (1 - 0.999**self.count)).sqrt() + 1e-8)
                update = self.base * update + wd * p
                p -= group["lr"] / self.base * update


class BigVision(Loop):
    """google-research/big_vision configs/vit_s16_i1k.py: lr 1e-3, wd 1e-4, clip 1, cosine by step.

    ``softmax_xent`` of mixed labels; the schedule of utils.py ``create_learning_rate_schedule``.
    """

    warmup_steps = 5

    def __init__(self, net: nn.Module, epochs: int, steps: int) -> None:
        super().__init__(net, epochs, steps)
        self.criterion = SoftTargetCrossEntropy()
        # Kernels: all that has more than one dimension, but for the position embedding.
        groups = kernels_decay(net, 1e-4 / 1e-3, spared=["pos_embed"])
        self.optimizer = Adam(groups, base=1e-3, wd=1e-4)

    def begin_step(self, epoch: int, step: int) -> None:
        count = epoch * self.steps + step
        left = self.epochs * self.steps - self.warmup_steps
        progress = min(max((count - self.warmup_steps) / left, 0.0), 1.0)
        schedule = 0.5 * (1 + math.cos(math.pi * progress)) * min(1.0, count / self.warmup_steps)
        set_rate(self.optimizer, 1e-3 * schedule)

    def clip(self) -> None:
        gradients = [p.grad for p in self.net.parameters()]
        length = float(sum(g.double().square().sum() for g in gradients)) ** 0.5
        if length > 1.0:
            for gradient in gradients:
                gradient.div_(length)


class Ffcv(Loop):
    """libffcv/ffcv-imagenet train_imagenet.py: no decay on "bn", rates interpolated in an epoch.

    ``get_resolution`` and ``get_cyclic_lr`` with ``lr_peak_epoch`` 2.
    """

    def __init__(
        self, net: nn.Module, epochs: int, steps: int, *, lr: float, weight_decay: float
    ) -> None:
        super().__init__(net, epochs, steps)
        self.lr = lr
        named = list(net.named_parameters())
        groups = [
            {"params": [p for n, p in named if "bn" in n], "weight_decay": 0.0},
            {"params": [p for n, p in named if "bn" not in n], "weight_decay": weight_decay},
        ]
        self.optimizer = SGD(groups, lr=1, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    def _rate(self, epoch: int) -> float:
        return float(np.interp([epoch], [0, 2, self.epochs], [1e-4 * self.lr, self.lr, 0])[0])

    def begin_step(self, epoch: int, step: int) -> None:
        ends = [self._rate(epoch), self._rate(epoch + 1)]
        set_rate(self.optimizer, np.interp(np.arange(self.steps), [0, self.steps], ends)[step])

    @staticmethod
    def side(epoch: int, smallest: int, largest: int, first: int, last: int) -> int:
        """Return the side of training images in ``epoch``."""
        if epoch <= first:
            return smallest
        if epoch >= last:
            return largest
        grown = np.interp([epoch], [first, last], [smallest, largest])
        return int(np.round(grown[0] / 32)) * 32


class Cutout(Loop):
    """uoguelph-mlrg/Cutout train.py: SGD with Nesterov, all decays, MultiStepLR of gamma 0.2.

    The scheduler is stepped at an epoch's end by the number of the epoch that is over: each fall
    comes an epoch after its milestone.
    """

    milestones = (1, 2)
    """Instead of 60, 120 and 160 of 200."""

    def __init__(self, net: nn.Module, epochs: int, steps: int) -> None:
        super().__init__(net, epochs, steps)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = SGD(
            net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        twin = SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        self.rates = rates_of(twin, MultiStepLR(twin, self.milestones, gamma=0.2), epochs)

    def end_epoch(self, epoch: int) -> None:
        set_rate(self.optimizer, self.rates[epoch])


def rates_of(optimizer: Optimizer, scheduler: LRScheduler, count: int) -> list[float]:
    """Return the rates of so many steps of a scheduler."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


class Plain(Loop):
    """An optimiser on kernels and the rest, a rise of an epoch from 1 %, then a cosine, by step.

    With a ``probe`` of so many epochs, these train the last layer alone (Kumar et al. 2022: norms
    keep their statistics), and all that follows is at a tenth of the rate.
    """

    def __init__(
        self, net: nn.Module, epochs: int, steps: int, *, optimizer: Callable[..., Optimizer],
        lr: float, weight_decay: float, smoothing: float = 0.0, probe: int = 0, last: str = "",
        max_norm: float | None = None, spared: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(net, epochs, steps)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
        groups = kernels_decay(net, weight_decay, spared)
        if probe:  # the last layer in groups of its own
            head = {id(p) for n, p in net.named_parameters() if n.startswith(last)}
            groups = [
                {**group, "params": [p for p in group["params"] if (id(p) in head) == of_head]}
                for of_head in (False, True)
                for group in groups
            ]
        self.optimizer = optimizer(in_order(net, groups), lr=lr)
        self.probe, self.last, self.max_norm = probe, last, max_norm
        twin = SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        total, rise = epochs * steps, steps
        halves = [LinearLR(twin, 0.01, total_iters=rise), CosineAnnealingLR(twin, total - rise)]
        self.rates = rates_of(twin, SequentialLR(twin, halves, [rise]), total)

    def begin_epoch(self, epoch: int) -> None:
        frozen = epoch < self.probe
        self.net.train()
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad = not frozen or name.startswith(self.last)
        for module in self.net.modules():
            if frozen and isinstance(module, nn.BatchNorm2d):
                module.eval()

    def begin_step(self, epoch: int, step: int) -> None:
        scale = 0.1 if self.probe and epoch >= self.probe else 1.0
        set_rate(self.optimizer, scale * self.rates[epoch * self.steps + step])

    def clip(self) -> None:
        if self.max_norm is not None:
            groups = self.optimizer.param_groups
            nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], self.max_norm)


def merged(micros: Sequence[Micro]) -> Micro:
    """Return one batch of several micro-batches."""
    whole = copy.copy(micros[0])
    for key in ("images", "labels"):
        whole[key] = torch.cat([micro[key] for micro in micros])
    if whole["targets"] is not None:
        whole["targets"] = torch.cat([micro["targets"] for micro in micros])
    return whole
