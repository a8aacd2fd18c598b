"""Plain loops written from what references do: timm, ConvNeXt, MAE, big_vision.

The constants are those of the reference's own defaults and commands. Only the lengths (epochs,
warm-up, milestones) are a toy's.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.optim import Lamb
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV2
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from recipes.loops import Loop, Micro, kernels_decay, set_rate


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
