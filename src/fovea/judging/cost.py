"""What a network costs: parameters, multiply-adds, images per second, the wait for one image."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

log = logging.getLogger("fovea")

BUDGET_S = 3.0
"""Seconds that all timing together takes; a network whose single pass takes longer exceeds it."""

_WARM_UP = 3
_MOST = 200
"""Passes that are timed at most: more would not change the median."""


def count_cost(
    network: nn.Module, trainer: lightning.Trainer, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Return ``parameters`` and ``flops`` of one image, see `count_flops`.

    ``flops`` is None where the network is sharded over devices, so no rank can run it alone, and
    for one that the counter can't follow.

    Args:
        network: images -> logits.
        trainer: that ran it.
        image_shape: (C, H, W).
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if not _is_whole(trainer):
        return {"parameters": parameters, "flops": None}
    try:
        return {"parameters": parameters, "flops": count_flops(network, image_shape)}
    except Exception as error:  # whatever it was, it should not spoil a run that is finished
        log.warning("The network's operations could not be counted: %s", error)
        return {"parameters": parameters, "flops": None}


def _is_whole(trainer: lightning.Trainer) -> bool:
    """Return whether each rank holds all of the network."""
    return isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy)


def count_flops(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the floating point operations that the network makes of one image.

    A multiply-add is two operations. Half of this is what papers and the tables of torchvision and
    timm call FLOPs or MACs: 1.814 G for ResNet-18 at 224 x 224. Convolutions, matrix products and
    attention count; norms, activations and pooling do not, as in those tables.

    Args:
        network: images -> logits, on any device.
        image_shape: (C, H, W).
    """
    parameter = next(network.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    training = network.training
    try:
        with torch.no_grad(), counting_flops() as counter:
            network.eval()(image)
    finally:
        network.train(training)
    return counter.get_total_flops()


@contextmanager
def counting_flops() -> Iterator[FlopCounterMode]:
    """Count the floating point operations that are made inside, forward and backward.

    Yields:
        the counter: ``get_total_flops()``. See `count_flops` for what counts.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    try:
        # Fused kernels and compiled ones are opaque to the counter.
        torch.backends.mha.set_fastpath_enabled(False)
        eager = torch.compiler.set_stance("force_eager")
        with sdpa_kernel(SDPBackend.MATH), eager, counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _convolution_backward(
    gradient: torch.Size,
    image: torch.Size,
    weight: torch.Size,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    wanted: list[bool],
    **_: Any,
) -> int:
    """Return as many operations as the forward pass has, for each gradient that is ``wanted``.

    Torch's own formula takes a depthwise convolution for a dense one here: ConvNeXt-T would have
    three times the operations that it has.
    """
    positions = image if transposed else gradient
    return 2 * math.prod(positions) * math.prod(weight[1:]) * sum(wanted[:2])


def measure_cost(
    network: nn.Module,
    trainer: lightning.Trainer,
    image_shape: tuple[int, int, int],
    batch_size: int,
    budget: float = BUDGET_S,
) -> dict[str, Any]:
    """Return what `count_cost` does and how fast the network is, on the trainer's first device.

    Of the network alone, warm, with its input on the device and in the trainer's precision:
    ``images_per_second`` at ``batch_size``, and ``latency_ms`` and ``latency_p95_ms``, median and
    95th percentile of the time for one image. Then ``device``, ``precision`` and ``threads`` (of a
    CPU). Where passes of the whole batch would not fit the budget, ``batch_size`` is smaller.

    Args:
        network: images -> logits.
        trainer: that ran it.
        image_shape: (C, H, W).
        batch_size: of the evaluation.
        budget: seconds.
    """
    cost = count_cost(network, trainer, image_shape)
    if not _is_whole(trainer):
        return cost
    home, device = next(network.parameters()).device, trainer.strategy.root_device
    network.to(device).eval()
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        single = _time(network, (1, *image_shape), device, budget / 3)
        latency = statistics.median(single)
        while batch_size > 1 and _WARM_UP * batch_size * latency > budget / 2:
            batch_size //= 2
        times = _time(network, (batch_size, *image_shape), device, budget / 3)
    network.to(home)
    return {
        **cost,
        "images_per_second": batch_size / statistics.median(times),
        "batch_size": batch_size,
        "latency_ms": 1000 * latency,
        "latency_p95_ms": 1000 * float(np.percentile(single, 95)),
        "device": _name(device),
        "precision": str(trainer.precision),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
    }


def _time(
    network: nn.Module, shape: tuple[int, ...], device: torch.device, seconds: float
) -> list[float]:
    """Return the duration of each of some passes, in seconds; the first ones are not among them."""
    dtype = next(network.parameters()).dtype
    images = torch.zeros(shape, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    end = time.perf_counter() + seconds
    times: list[float] = []
    for number in range(_WARM_UP + _MOST):
        began = time.perf_counter()
        network(images)
        wait()
        now = time.perf_counter()
        if number >= _WARM_UP or now > end:
            times.append(now - began)
        if now > end:
            break
    return times


def _name(device: torch.device) -> str:
    """Return ``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
