"""``tune.lr=true``: a range test (Smith 2017, section 3.3) gives the learning rate of the run.

The test has data, network and trainer of its own. The run builds all of them again from its seed,
so that it is, bit for bit, the run that one would have started with that rate.
"""

from __future__ import annotations

import io
import json
import logging
import time
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.tuner import Tuner
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf, open_dict

from fovea import console
from fovea.checkpoints import durable
from fovea.data import ImageDataModule
from fovea.errors import FoveaError
from fovea.experiment import (
    batch_limit,
    build_data,
    build_model,
    build_task,
    count_steps,
    make_trainer,
    preprocessing_of,
)
from fovea.machine import devices
from fovea.machine.accumulation import find_accumulation
from fovea.optim import steps_in_run
from fovea.tasks import Task

log = logging.getLogger("fovea")

FOLDER = "tune"
LEAST_STEPS = 20
"""Of these Lightning leaves out the first ten and the last, which say little."""


def tune_lr(cfg: DictConfig, folder: Path) -> None:
    """Put the rate that a range test suggests in place of ``cfg.optimizer.lr``, and say so.

    Rank 0 makes the test, alone and with the run's global batch; the others wait for what it
    writes: ``<folder>/tune/learning_rate.json``, and a picture beside it. A run that begins once
    more in the same folder takes what stands there.

    Args:
        cfg: of the train command; changed in place.
        folder: of the run.

    Raises:
        FoveaError: a run that is too short for it, stages with rates of their own, or a loss that
            never falls.
    """
    file = folder / FOLDER / "learning_rate.json"
    if not file.is_file():
        if devices.is_main_process():
            _test(cfg, file)
        else:
            _wait_for(file, float(cfg.trainer.collective_timeout))
    found = float(json.loads(file.read_text(encoding="utf-8"))["suggestion"])
    log.info("tune.lr: optimizer.lr %g -> %g", cfg.optimizer.lr, found)
    log.info("  of a range test, see %s", console.shorten(file.with_suffix(".png")))
    cfg.optimizer.lr = found


def _test(cfg: DictConfig, file: Path) -> None:
    """Make the test, and write its outcome and its picture."""
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    devices.check(cfg.trainer.accelerator, cfg.trainer.devices)
    world = make_trainer(cfg.trainer, file.parents[1], logger=False).world_size
    data = build_data(cfg, preprocessing_of(cfg.model))
    backbone, head, _ = build_model(cfg.model, data.image_shape, data.class_names)
    task = build_task(cfg, backbone, head, data.class_names, data.class_counts("train"))
    steps = _steps(cfg, task, data)
    tuner = Tuner(_trainer(cfg, file.parents[1], _accumulation(cfg, task, data, file, world)))
    with _no_bar_into_files():
        finder = tuner.lr_find(
            task,
            datamodule=data,
            min_lr=cfg.tune.lr_min,
            max_lr=cfg.tune.lr_max,
            num_training=steps,
            update_attr=False,
        )
    suggestion = None if finder is None else finder.suggestion()
    if finder is None or suggestion is None:
        raise FoveaError("tune.lr: the test gave no rate: set optimizer.lr yourself.")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    finder.plot(suggest=True, ax=axes)
    axes.set(title=f"Range test: {suggestion:.3g}", ylabel="Loss, smoothed")
    figure.savefig(file.with_suffix(".png"), dpi=150)
    # Digits that one would type: the rate itself is known to a factor of two or so.
    outcome = {"suggestion": float(f"{suggestion:.3g}"), **finder.results}
    durable.write_text(file, json.dumps(outcome, indent=2) + "\n")


def _no_bar_into_files() -> AbstractContextManager[Any]:
    """Return a context in which Lightning's progress bar is shown to people alone."""
    return nullcontext() if console.is_terminal() else redirect_stderr(io.StringIO())


def _steps(cfg: DictConfig, task: Task, data: ImageDataModule) -> int:
    """Return the steps of the test: no more than the run makes before it thaws anything.

    Raises:
        FoveaError: those are too few; or the stages do not all have the same rate, as they would
            in the test.
    """
    freeze = task.freeze_schedule.bind(task.parts(), cfg.trainer.max_epochs)
    scales = {scale for scale in freeze.scales(0).values() if scale is not None}
    if task.layer_decay != 1 or scales != {1.0} or task.param_scales:
        raise FoveaError(
            "tune.lr=true gives all parameters the same rate, and here task.layer_decay, "
            "task.param_scales or freeze gives them different ones. Find the rate without them, "
            "and type it: optimizer.lr=…"
        )
    epochs = [start for start in freeze.starts[1:] if start < cfg.trainer.max_epochs]
    epochs += [cfg.trainer.max_epochs]
    global_batches = data.split_sizes["train"] // data.batch_size
    an_epoch = count_steps(global_batches, 1, batch_limit(cfg.trainer))
    steps = min(cfg.tune.steps, steps_in_run(epochs[0], an_epoch, cfg.trainer.max_steps))
    if steps < LEAST_STEPS:
        raise FoveaError(
            f"tune.lr=true needs {LEAST_STEPS} steps, and there are {steps} (tune.steps, and those "
            "of the run until something is thawed). Set optimizer.lr yourself, or let "
            "trainer.max_epochs (and trainer.max_steps, trainer.limit_train_batches) be more."
        )
    return int(steps)


def _trainer(cfg: DictConfig, folder: Path, accumulate: int) -> lightning.Trainer:
    """Return a trainer of one device whose steps see the run's global batch."""
    node = cfg.trainer.copy()
    with open_dict(node):
        numbered = OmegaConf.is_list(node.devices)
        node.devices = list(node.devices)[:1] if numbered else 1
        node.num_nodes, node.strategy, node.profiler = 1, "auto", None
        node.accumulate_grad_batches = accumulate
        node.check_val_every_n_epoch = cfg.trainer.max_epochs + 1
    plugins = [LightningEnvironment()]  # as if started by hand, also under torchrun and srun
    settings: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    return make_trainer(node, folder, plugins=plugins, enable_progress_bar=False, **settings)


def _accumulation(
    cfg: DictConfig, task: Task, data: ImageDataModule, file: Path, world: int
) -> int:
    """Return the micro-batches in which one device gets the run's global batch."""
    number = cfg.trainer.accumulate_grad_batches
    if number != "auto":
        return world * int(number)
    alone = _trainer(cfg, file.parents[1], 1)
    return max(world, find_accumulation(task, data, alone, cfg.trainer.max_epochs, averaged=False))


def _wait_for(file: Path, seconds: float) -> None:
    """Return once rank 0 has written ``file``."""
    end = time.monotonic() + seconds
    while not file.is_file():
        if time.monotonic() > end:
            raise FoveaError(
                f"tune.lr: rank 0 did not write {file} within {seconds:g} s "
                "(trainer.collective_timeout). Does it see the same paths.outputs?"
            )
        time.sleep(0.2)
