"""airbench94's training in plain torch: what `benchmark_speedrun.py` compares fovea with.

Written after Jordan 2024, arXiv 2404.00498, and KellerJordan/cifar10-airbench
``legacy/airbench94.py``, with that script's arithmetic: the sum of the losses, rate and decay
divided by the momentum's gain, all images of an epoch augmented at once. It uses nothing of fovea.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LR, MOMENTUM, DECAY, BIAS_SCALE = 11.5, 0.85, 0.0153, 64.0
"""Rate and decay for 1024 images, decoupled from the momentum and from each other."""
SMOOTHING, WHITEN_BIAS_EPOCHS, PADDING = 0.2, 3, 2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
Batches = Iterable[tuple[Tensor, Tensor]]
Watch = Callable[["Net", torch.optim.Optimizer], None]


class Norm(nn.BatchNorm2d):
    """BatchNorm whose weight stays at one; running statistics keep 0.6 a step."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False


class Group(nn.Module):
    """Convolution, pooling, BatchNorm, GELU, convolution, BatchNorm, GELU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(c_in, c_out), conv(c_out, c_out)
        self.norm1, self.norm2 = Norm(c_out), Norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, c_out, H // 2, W // 2) of (B, c_in, H, W)."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


def conv(c_in: int, c_out: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution whose first filters are the identity."""
    made = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(made.weight[:c_in])
    return made


class Net(nn.Module):
    """Logits (B, 10) of normalised images (B, 3, 32, 32)."""

    def __init__(self, widths: Sequence[int] = (64, 256, 256)) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]
        self.whiten.weight.requires_grad = False
        pairs = zip([24, *widths[:2]], widths, strict=True)
        self.groups = nn.Sequential(*(Group(*pair) for pair in pairs))
        self.linear = nn.Linear(widths[-1], 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.groups(F.gelu(self.whiten(x)))
        return self.linear(F.max_pool2d(x, 3).flatten(1)) / 9

    @torch.no_grad()
    def set_whitening(self, images: Tensor) -> None:
        """Set the first convolution from normalised images (N, 3, 32, 32)."""
        views = images.float().unfold(2, 2, 1).unfold(3, 2, 1)  # (N, 3, 31, 31, 2, 2)
        rows = views.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).double()
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))


def normalize(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uint8 images (N, 3, H, W) as the network wants them, channels_last."""
    mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (MEAN, STD))
    scaled = (images.float() / 255 - mean) / std
    return scaled.to(dtype).contiguous(memory_format=torch.channels_last)


class Loader:
    """Augmented batches, a new order, shifts and flips in each epoch.

    Args:
        images: normalised, (N, 3, 32, 32).
        labels: (N,) int64.
        batch_size: the rest of an epoch is left out.
        source: of the random numbers, on the CPU.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch_size: int, source: torch.Generator
    ) -> None:
        self.labels, self.batch_size, self.source = labels, batch_size, source
        chosen = torch.rand(len(images), generator=source) < 0.5
        flipped = torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)
        self.padded = F.pad(flipped, (PADDING,) * 4, mode="reflect")
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device, count = self.labels.device, len(self.labels)
        places = 2 * PADDING + 1
        shift = torch.randint(places * places, (count,), generator=self.source).to(device)
        shape = (count, 3, 32, 32)
        images = torch.empty(
            shape, dtype=self.padded.dtype, device=device, memory_format=torch.channels_last
        )
        for place in range(places * places):
            top, left = divmod(place, places)
            mine = (shift == place).nonzero()[:, 0]
            images[mine] = self.padded[mine, :, top : top + 32, left : left + 32]
        if self.epoch % 2 == 1:
            images = images.flip(3)
        self.epoch += 1
        order = torch.randperm(count, generator=self.source).to(device)
        for batch in order[: len(self) * self.batch_size].split(self.batch_size):
            yield images[batch].contiguous(memory_format=torch.channels_last), self.labels[batch]


@dataclass
class Trained:
    """What a training left.

    Attributes:
        losses: mean of each step's batch, (steps,).
        wall: seconds of each epoch.
        cpu: processor seconds of each epoch.
    """

    losses: list[Tensor] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def train(
    net: Net, epochs: Iterable[Batches], total: int, batch_size: int, watch: Watch | None = None
) -> Trained:
    """Train ``net`` for ``total`` steps.

    Args:
        net: whitened, on its device.
        epochs: what each epoch goes through.
        total: steps.
        batch_size: images of a step.
        watch: called after each step, before the rate changes.
    """
    optimizer = make_optimizer(net, batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: triangle(step, total))
    slow = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = Trained()
    for epoch, batches in enumerate(epochs):
        net.train().whiten.bias.requires_grad = epoch < WHITEN_BIAS_EPOCHS  # type: ignore[union-attr]
        began = clocks(net.linear.weight.is_cuda)
        for images, labels in itertools.islice(batches, total - len(found.losses)):
            loss = step(net, optimizer, images, labels)
            found.losses.append(loss / batch_size)
            done = len(found.losses)
            if done % 5 == 0:
                look_ahead(net, slow, 0.95**5 * (done / total) ** 3)
            if done == total:
                look_ahead(net, slow, 1.0)
            if watch:
                watch(net, optimizer)
            schedule.step()
        now = clocks(net.linear.weight.is_cuda)
        found.wall.append(now[0] - began[0])
        found.cpu.append(now[1] - began[1])
        if len(found.losses) == total:
            break
    return found


def make_optimizer(net: Net, batch_size: int) -> torch.optim.Optimizer:
    """Return SGD on the sum of a batch's losses: BatchNorm's biases faster, all decayed alike."""
    scale = 1024 * (1 + 1 / (1 - MOMENTUM))
    rate, decay = LR / scale, DECAY * batch_size / scale
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    norms = [p for name, p in named if "norm" in name]
    others = [p for name, p in named if "norm" not in name]
    groups = [
        {"params": norms, "lr": rate * BIAS_SCALE, "weight_decay": decay / (rate * BIAS_SCALE)},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)


def step(net: Net, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """Make a step and return the sum of the losses before it."""
    logits = net(images).float()
    loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING, reduction="sum")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


def triangle(step: int, total: int) -> float:
    """Return the factor on the rate: from 0.2 up to 1 at 23 % of the steps, down to 0.07."""
    top = int(0.23 * total)
    if step < top:
        return 0.2 + 0.8 * step / top
    return 1 - 0.93 * (step - top) / (total - top)


@torch.no_grad()
def look_ahead(net: Net, slow: dict[str, Tensor], keep: float) -> None:
    """Move the slow weights to those of ``net``, keeping a share, and put them in their place."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            slow[name].lerp_(tensor, 1 - keep)
            tensor.copy_(slow[name])


def clocks(cuda: bool) -> tuple[float, float]:
    """Return seconds on the wall and of this process's processors, once the device is done."""
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


@torch.no_grad()
def predict(net: Net, images: Tensor, views: bool) -> Tensor:
    """Return logits (N, 10) of normalised images, of six views of each or of the image alone."""
    net.eval()
    return torch.cat([_six(net, part) if views else net(part) for part in images.split(1000)])


def _six(net: Net, images: Tensor) -> Tensor:
    padded = F.pad(images, (1,) * 4, mode="reflect")
    both = [images, padded[:, :, :32, :32], padded[:, :, 2:, 2:]]
    own, first, second = ((net(v) + net(v.flip(3))) / 2 for v in both)
    return own / 2 + (first + second) / 4
