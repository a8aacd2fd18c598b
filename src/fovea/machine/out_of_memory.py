"""Out of memory: in which part of the work it happened, and what to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fovea.data import ImageDataModule
from fovea.errors import FoveaError

# What allocators say that have no exception type of their own: torch's on the CPU, cuDNN, cuBLAS.
_WORDS = r"can't allocate memory|not enough memory|out of memory|STATUS_ALLOC_FAILED"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that a device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(re.search(_WORDS, str(error)))


@contextmanager
def explaining_out_of_memory(trainer: Trainer, data: ImageDataModule) -> Iterator[None]:
    """Raise what an allocator raises inside as a `FoveaError` with what to change.

    The global batch stays as it is in all that is proposed first.
    """
    stage = _Stage()
    trainer.callbacks.append(stage)  # type: ignore[attr-defined]
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise FoveaError(_explain(error, trainer, data, stage)) from error
    finally:
        trainer.callbacks.remove(stage)  # type: ignore[attr-defined]


class _Stage(Callback):
    """Notes where an exception came from: Lightning forgets it before it lets it go on."""

    evaluating = False
    step = 0

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.evaluating = not trainer.training
        self.step = trainer.global_step


def _explain(error: Exception, trainer: Trainer, data: ImageDataModule, stage: _Stage) -> str:
    where = str(trainer.strategy.root_device)
    first = str(error).partition("\n")[0][:200]
    shape = " x ".join(map(str, data.image_shape))
    if stage.evaluating:
        size = data.eval_batch_size
        ways = [f"data.eval_batch_size={size // 2}: the scores stay the same"] if size > 1 else []
        return "\n  ".join(
            [
                f"Out of memory on {where} in evaluation, with data.eval_batch_size={size} images "
                f"of {shape} a device.",
                *(ways or ["data.image_size=… for smaller images, or a smaller network"]),
                f"({first})",
            ]
        )
    world, accumulate = trainer.world_size, trainer.accumulate_grad_batches
    share = data.batch_size // (world * accumulate)
    return "\n  ".join(
        [
            f"Out of memory on {where} in training, at step {stage.step}: {share} images of "
            f"{shape} at a time (data.batch_size={data.batch_size} = {world} x {share} x "
            f"{accumulate} accumulated). What helps, the first without changing the optimisation:",
            *_ways(trainer, data, share),
            f"({first})",
        ]
    )


def _ways(trainer: Trainer, data: ImageDataModule, share: int) -> list[str]:
    """Return what to type, one line each."""
    world, accumulate = trainer.world_size, trainer.accumulate_grad_batches
    ways = []
    larger = next((n for n in accumulations(data.batch_size, world) if n >= 2 * accumulate), None)
    if larger is not None:
        ways.append(
            f"trainer.accumulate_grad_batches={larger}: {data.batch_size // (world * larger)} "
            "images at a time, the same global batch (auto: finds what fits, for a new run)"
        )
    if trainer.strategy.root_device.type == "cuda" and trainer.precision == "32-true":
        ways.append("trainer.precision=bf16-mixed: about half of what a batch takes")
    size = data.image_shape[-1]
    if size >= 64:
        ways.append(f"data.image_size={size * 3 // 4 // 16 * 16}: about half of the pixels")
    if world > 1 and trainer.strategy.root_device.type == "cuda":
        ways.append("trainer=fsdp: weights and optimiser are shared by the devices")
    if share == 1 or larger is None:
        ways.append("a smaller network, or freeze=head_only, which keeps no activations")
    return ways


def accumulations(batch_size: int, world: int) -> list[int]:
    """Return the numbers of micro-batches that the global batch can be cut into, least first."""
    share = batch_size // world
    return [n for n in range(1, share + 1) if share % n == 0]
