"""From a configuration and a kind of GPU to hours, bytes and images a second."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from fovea.data.settings import check_batch
from fovea.experiment import count_steps
from fovea.machine.out_of_memory import accumulations
from fovea.optim import steps_in_run
from fovea.planning.hardware import GPUS
from fovea.planning.measuring import StepCost, forward_flops, measure_step
from fovea.planning.planned import PlannedRun
from fovea.planning.sizes import Sizes

ROOM = 0.95
"""Share of a GPU's memory that a run may take: as `trainer.accumulate_grad_batches=auto` has it."""


@dataclass(frozen=True)
class Plan:
    """What a run would take.

    Attributes:
        gpu: name in `GPUS`.
        count: GPUs in a machine.
        nodes: machines.
        sizes: of the data.
        batch_size: global.
        accumulate: micro-batches of a step.
        epochs: of the run, the last perhaps cut short.
        steps: of the run.
        steps_per_epoch: optimiser steps.
        half: whether most of it is computed in bfloat16 or float16.
        flops: of the whole run, validation included.
        flops_per_image: of training an image, forward and backward, the mean over the run.
        least_flops_per_image: the same in the cheapest phase.
        speed: FLOP/s of one GPU.
        speed_from: where ``speed`` is from.
        memory: bytes on each GPU by what they are for, at the most demanding moment.
        checkpoint: bytes of one.
        checkpoints: files of that size that the disk holds at most.
        network: bytes that each GPU sends in a step.
        network_how: in which way.
    """

    gpu: str
    count: int
    nodes: int
    sizes: Sizes
    batch_size: int
    accumulate: int
    epochs: int
    steps: int
    steps_per_epoch: int
    half: bool
    flops: float
    flops_per_image: float
    least_flops_per_image: int
    speed: float
    speed_from: str
    memory: dict[str, int]
    checkpoint: int
    checkpoints: int
    network: int
    network_how: str

    @property
    def world(self) -> int:
        """GPUs in all."""
        return self.count * self.nodes

    @property
    def seconds(self) -> float:
        """Duration of the run, start and checkpoints left out."""
        return self.flops / (self.speed * self.world)

    @property
    def mfu(self) -> float:
        """Share of the GPU's peak, by its data sheet and in this precision, that is reached."""
        gpu = GPUS[self.gpu]
        return self.speed / (gpu.half if self.half else gpu.full)

    @property
    def images_per_second(self) -> float:
        """That storage and processors have to deliver to all GPUs in the cheapest phase."""
        return self.speed * self.world / self.least_flops_per_image

    @property
    def fits(self) -> bool:
        """Whether a micro-batch fits into the memory of the GPU."""
        return sum(self.memory.values()) <= ROOM * GPUS[self.gpu].memory


def make_plan(cfg: DictConfig) -> Plan:
    """Return what the run that ``cfg`` describes would take on ``cfg.hardware``.

    Images are not needed where the data set is ImageNet or CIFAR; weights and GPUs never are.

    Raises:
        FoveaError: as the run would raise it for the same mistakes.
    """
    run = PlannedRun(cfg)
    accumulate, costs = _find_step(run)
    steps = count_steps(run.sizes.train // run.data.batch_size, accumulate, run.limit)
    made = steps_in_run(cfg.trainer.max_epochs, steps, cfg.trainer.max_steps)
    epochs = math.ceil(made / steps)
    trained = run.data.batch_size * _over_phases(run, costs, made, steps)
    checks = epochs // cfg.trainer.check_val_every_n_epoch
    validated = forward_flops(run.task, run.data.image_shape) * run.sizes.val * checks
    speed, speed_from = run.speed()
    network, network_how = run.network()
    return Plan(
        gpu=cfg.hardware.gpu,
        count=run.count,
        nodes=run.nodes,
        sizes=run.sizes,
        batch_size=run.data.batch_size,
        accumulate=accumulate,
        epochs=epochs,
        steps=made,
        steps_per_epoch=steps,
        half=run.half,
        flops=trained + validated,
        flops_per_image=trained / (made * run.data.batch_size),
        least_flops_per_image=min(cost.flops for cost in costs),
        speed=speed,
        speed_from=speed_from,
        memory=_memory(run, costs),
        checkpoint=run.checkpoint_bytes(),
        checkpoints=cfg.checkpoint.keep + 2,
        network=network,
        network_how=network_how,
    )


def _over_phases(run: PlannedRun, costs: list[StepCost], made: int, steps: int) -> int:
    """Return the sum, over the ``made`` steps of a run, of what an image costs in each.

    Args:
        run: with the phases that ``costs`` are of.
        costs: of an image.
        made: steps of the run, which may end before all phases have begun.
        steps: of an epoch.
    """
    total, left = 0, made
    for cost, phase in zip(costs, run.phases, strict=True):
        here = min(left, phase.epochs * steps)
        total, left = total + cost.flops * here, left - here
    return total


def _find_step(run: PlannedRun) -> tuple[int, list[StepCost]]:
    """Return the accumulation, and what each phase takes with it.

    Of ``trainer.accumulate_grad_batches=auto`` it is the least that fits, or else the most.
    """
    batch, world = run.data.batch_size, run.count * run.nodes
    wanted = run.cfg.trainer.accumulate_grad_batches
    check_batch(batch, world, 1 if wanted == "auto" else wanted, run.sizes.train)
    numbers = accumulations(batch, world) if wanted == "auto" else [wanted]
    for number in numbers:
        costs = [
            measure_step(
                run.task,
                (run.data.image_shape[0], phase.side, phase.side),
                batch // (world * number),
                phase.trainable,
                soft_targets=run.mixed,
                half=run.half,
            )
            for phase in run.phases
        ]
        if sum(_memory(run, costs).values()) <= ROOM * run.gpu.memory:
            break
    return number, costs


def _memory(run: PlannedRun, costs: list[StepCost]) -> dict[str, int]:
    return run.state_bytes() | {"activations": max(cost.activations for cost in costs)}
