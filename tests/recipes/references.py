"""Plain loops written from what references do: torchvision, ffcv-imagenet, Cutout, transfer.

The constants are those of the reference's own defaults and commands. Only the lengths (epochs,
warm-up, milestones) are a toy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import AveragedModel

from recipes.loops import Loop, in_order, kernels_decay, rates_of, set_rate


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
