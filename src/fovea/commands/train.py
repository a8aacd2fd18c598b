"""``python src/train.py``: build, fit, keep everything, say where it is."""

from __future__ import annotations

import csv
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig
from PIL import Image

from fovea import config, console, devices, resume, run_folder
from fovea.commands.eval import evaluate
from fovea.data import ImageDataModule
from fovea.errors import FoveaError
from fovea.evaluation import plot_learning_curves
from fovea.experiment import Experiment, build, build_data, plain_config
from fovea.inference import Checkpoint, read_checkpoint
from fovea.tracking import WandbRun, environment_record

log = logging.getLogger("fovea")


def run(cfg: DictConfig, overrides: list[str]) -> float | None:
    """Train as ``cfg`` says and return the best value of the monitored metric.

    Leaves in ``cfg.paths.run`` what `fovea.run_folder` lists. The best checkpoint is evaluated on
    the validation split, with ``cfg.test`` on the test split.

    Raises:
        FoveaError: a mistake in configuration or data, or a loss that is no number.
    """
    folder = Path(cfg.paths.run)
    run_folder.check_writable(folder)
    start, step = None, None
    if cfg.resume is not None:
        start = run_folder.checkpoint(cfg.resume, "last")
        checkpoint = read_checkpoint(start)
        step = checkpoint.global_step
        cfg = resume.merge(cfg, run_folder.read_config(folder), overrides)
        config.check(cfg, "train")
    if cfg.data.check:
        _check_images(cfg, folder)
        return None
    began = time.time()
    experiment = build(cfg, step)
    if start is not None:
        _check_same_data(checkpoint, experiment.data)
    devices.check_disk(folder, experiment.task)
    if devices.is_main_process():
        run_folder.write_record(folder, plain_config(cfg), overrides, environment_record())
        run_folder.write_summary(
            folder,
            state="running",
            error=None,
            started=began,
            splits=experiment.data.splits_recorded,
        )
        console.print_start(folder, experiment, start)
    try:
        with experiment.data.explaining_dead_workers():
            experiment.trainer.fit(
                experiment.task,
                datamodule=experiment.data,
                ckpt_path=None if start is None else str(start),
                weights_only=True,
            )
        return _finish(cfg, experiment, began)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        _ended_early(folder, experiment.trainer, error, began)
        raise


def _check_same_data(checkpoint: Checkpoint, data: ImageDataModule) -> None:
    """Raise `FoveaError` if the run that is gone on with was trained on other images."""
    now = data.split_fingerprints()
    changed = [name for name, then in checkpoint.splits.items() if now.get(name) != then]
    if changed:
        raise FoveaError(
            f"The images of {', '.join(changed)} are not those the run began with: files were "
            "added, removed or renamed. Restore them, or start a new run from its weights: "
            f"model.weights={checkpoint.path}"
        )


def _check_images(cfg: DictConfig, folder: Path) -> None:
    """Read every image once and print and write down what is wrong; nothing is trained.

    Raises:
        FoveaError: some can't be read; they are listed in image_check.csv.
    """
    data = build_data(cfg)
    found = data.check()
    table = folder / "image_check.csv"
    with table.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([("path", "reason", "split", "readable"), *found])
    console.print_rows(data.describe())
    for item in found[:20]:
        log.info("  %s: %s (%s)", item.path, item.reason, item.split)
    unreadable = sum(not item.readable for item in found)
    log.info(
        "%d images read: %d unreadable, %d odd; all in %s",
        *(data.num_files(), unreadable, len(found) - unreadable),
        console.shorten(table),
    )
    if unreadable:
        raise FoveaError(
            f"{unreadable} images can't be read. Mend or remove them, or train without them: "
            "data.on_bad_image=skip"
        )


def _ended_early(folder: Path, trainer: Trainer, error: BaseException, began: float) -> None:
    """Record the state, and name the command that goes on from the last checkpoint.

    Lightning turns Ctrl-C into SystemExit after it has closed loggers and ranks.
    """
    if not devices.is_main_process():
        return
    _close_wandb(trainer, {}, exit_code=1)
    interrupted = isinstance(error, SystemExit | KeyboardInterrupt)
    state = "interrupted" if interrupted else "failed"
    reason = None if interrupted else str(error)
    run_folder.write_summary(folder, state=state, seconds=time.time() - began, error=reason)
    if (folder / run_folder.CHECKPOINTS / "last.ckpt").is_file():
        log.info("%s. To go on: %s", state, console.command("train", f"resume={folder}"))
    else:
        log.info("%s before the first checkpoint.", state)
    if interrupted:
        sys.exit(130)


def _close_wandb(trainer: Trainer, summary: dict[str, float | None], exit_code: int = 0) -> None:
    """End the W&B run and say where it is to be seen; Lightning leaves it open."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbRun):
            where = logger.url or logger.sync_command
            logger.finish({k: v for k, v in summary.items() if v is not None}, exit_code)
            if where:
                console.print_rows([("W&B", where)])


def _finish(cfg: DictConfig, experiment: Experiment, began: float) -> float | None:
    """Evaluate the best checkpoint, write figures and summary, print where they are."""
    folder, trainer = Path(cfg.paths.run), experiment.trainer
    checkpoint = getattr(trainer, "checkpoint_callback", None)
    best = str(getattr(checkpoint, "best_model_path", "") or "")
    score = getattr(checkpoint, "best_model_score", None)
    if score is None:
        score = trainer.callback_metrics.get(cfg.monitor.metric)
    if best:
        state = torch.load(best, map_location="cpu", weights_only=True)
        experiment.task.load_state_dict(state["state_dict"])
    fit_metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    split = "test" if cfg.test else "val"
    metrics = evaluate(experiment.task, experiment.data, trainer, split, folder / "report")
    objective = None if score is None else float(score)
    if not devices.is_main_process():
        return objective
    curves = folder / "report" / "learning_curves.png"
    plot_learning_curves(folder / "metrics.csv", curves)
    bad = experiment.data.bad_images()
    read, by_pillow = experiment.data.decoded()
    run_folder.write_summary(
        folder,
        state="finished",
        seconds=time.time() - began,
        monitor=cfg.monitor.metric,
        objective=objective,
        metrics={**fit_metrics, **metrics},
        best_checkpoint=best or None,
        epochs=trainer.current_epoch,
        bad_images=[list(item) for item in bad],
        decoded={"read": read, "by_pillow": by_pillow},
    )
    log_figures(trainer.loggers, sorted((folder / "report").glob("*.png")))
    console.print_end(folder, experiment.data, cfg.monitor.metric, objective, metrics, best, bad)
    _close_wandb(trainer, {cfg.monitor.metric: objective, **metrics})
    return objective


def log_figures(loggers: list[Logger], figures: list[Path]) -> None:
    """Send picture files to the loggers that show pictures (W&B, TensorBoard)."""
    by_name = {figure.stem: figure for figure in figures}
    for logger in loggers:
        if isinstance(logger, WandbRun):
            for name, figure in by_name.items():
                logger.log_image(f"figures/{name}", [str(figure)])
        elif isinstance(logger, TensorBoardLogger):
            for name, figure in by_name.items():
                pixels = np.asarray(Image.open(figure).convert("RGB"))
                logger.experiment.add_image(f"figures/{name}", pixels, dataformats="HWC")
