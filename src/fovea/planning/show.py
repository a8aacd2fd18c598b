"""A plan on the terminal."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from fovea import console
from fovea.errors import FoveaError
from fovea.planning.hardware import GPUS
from fovea.planning.plan import ROOM, Plan, make_plan

SHORT_S = 0.02
"""Seconds of a forward and backward pass below which starting its kernels takes longer."""

log = logging.getLogger("fovea")


def print_plan(cfg: DictConfig) -> None:
    """Print what the run that ``cfg`` describes would take.

    Raises:
        FoveaError: see `make_plan`; ``resume`` is set.
    """
    if cfg.resume is not None:
        raise FoveaError("plan=true is of a run that begins: leave resume= out.")
    plan = make_plan(cfg)
    name = cfg.model.get("name", cfg.model._target_)
    log.info("\nfovea: a plan of %s on %d x %s; nothing is trained", name, plan.world, plan.gpu)
    console.print_rows([*_work(plan), *_memory(plan), *_traffic(plan)])


def _work(plan: Plan) -> list[tuple[str, str]]:
    gpu, share = GPUS[plan.gpu], plan.batch_size // (plan.world * plan.accumulate)
    batch = f"{plan.batch_size} = {plan.world} x {share}"
    batch += f" x {plan.accumulate} accumulated" if plan.accumulate > 1 else ""
    sizes, hours = plan.sizes, plan.seconds / 3600
    precision = "bf16 or fp16" if plan.half else "fp32 (TF32 where it has it)"
    peak = gpu.half if plan.half else gpu.full
    each = f"{plan.flops_per_image / 1e9:.2f} G an image, forward and backward"
    if plan.least_flops_per_image < plan.flops_per_image:
        each += f", on average ({plan.least_flops_per_image / 1e9:.2f} in the cheapest epochs)"
    return [
        ("data", f"{sizes.train:,} train, {sizes.val:,} val ({sizes.source})"),
        ("hardware", f"{plan.nodes} x {plan.count} {plan.gpu}: {peak / 1e12:g} TFLOP/s in "
         f"{precision}, {gpu.memory / 2**30:g} GiB, {gpu.bandwidth / 1e9:,.0f} GB/s\n{gpu.source}"),
        ("batch", batch),
        ("steps", f"{plan.steps:,} in {plan.epochs} epochs of {plan.steps_per_epoch:,}"),
        ("operations", f"{plan.flops:.3g} FLOP; {each}"),
        ("speed", f"{plan.speed / 1e12:.1f} TFLOP/s a GPU, {100 * plan.mfu:.1f} % of its peak (MFU)"
         f"\n{plan.speed_from}"),
        ("time", f"{_duration(plan.seconds)}, {hours * plan.world:.3g} GPU hours; {_trust(plan)}"),
    ]  # fmt: skip


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _trust(plan: Plan) -> str:
    """Return how good the estimate of the time is."""
    if plan.seconds / (plan.steps * plan.accumulate) < SHORT_S:
        return "in truth more: passes this short wait for the processor that starts their kernels"
    if plan.speed_from == "hardware.mfu":
        return "if images come as fast"
    return "within a factor of two, if images come as fast (hardware.mfu=… is better, measured)"


def _memory(plan: Plan) -> list[tuple[str, str]]:
    total, has = sum(plan.memory.values()), GPUS[plan.gpu].memory
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in plan.memory.items())
    fits = "fits" if plan.fits else f"does not fit into {ROOM:.0%} of it: {_what_helps(plan)}"
    rows = [
        ("memory", f"{_bytes(total)} of {_bytes(has)} a GPU, {fits}\n{parts}\n"
         "(not counted: workspaces of kernels, the CUDA context, gaps)"),
    ]  # fmt: skip
    disk = plan.checkpoint * plan.checkpoints
    files = f"{plan.checkpoints} x {_bytes(plan.checkpoint)}, one of them while it is written"
    return [*rows, ("disk", f"{_bytes(disk)} for checkpoints: {files}")]


def _what_helps(plan: Plan) -> str:
    if plan.batch_size // (plan.world * plan.accumulate) > 1:
        return "trainer.accumulate_grad_batches=auto"
    return "trainer=fsdp, or a GPU with more memory"


def _traffic(plan: Plan) -> list[tuple[str, str]]:
    rate = f"{plan.images_per_second:,.0f} images/s for all, "
    rate += f"{plan.images_per_second / plan.nodes:,.0f} a machine"
    if plan.sizes.file_bytes is not None:
        per_second = plan.images_per_second * plan.sizes.file_bytes
        rate += f"; {_bytes(per_second)}/s at {_bytes(plan.sizes.file_bytes)} an image"
    rows = [("from storage", rate)]
    if plan.network:
        per_second = plan.network * plan.steps / plan.seconds
        sent = f"{_bytes(plan.network)} a step from each GPU, {_bytes(per_second)}/s on average"
        rows.append(("network", f"{sent} ({plan.network_how})"))
    return rows


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1e13 else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"
