"""``python src/train.py``: build, fit, keep everything, say where it is."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from fovea import auto_resume, config, console, resume, run_folder, run_lock
from fovea.checkpoints import durable
from fovea.commands.ending import close_wandb, ended_early, give_up
from fovea.data import ImageDataModule
from fovea.errors import FoveaError
from fovea.evaluation import Predictions, plot_learning_curves
from fovea.experiment import Experiment, build, plain_config
from fovea.image_check import check_images
from fovea.inference import Checkpoint, read_checkpoint
from fovea.judging import count_cost, logged_metrics, predict_split, weights_fingerprint
from fovea.judging.reporting import images_of_data, keep, report
from fovea.machine import devices
from fovea.machine.no_room import spared
from fovea.machine.out_of_memory import explaining_out_of_memory
from fovea.planning import print_plan
from fovea.tracking import environment_record, last_values
from fovea.tuning import describe_largest, tune
from fovea.watching import show_results

log = logging.getLogger("fovea")


def run(cfg: DictConfig, overrides: list[str]) -> float | None:
    """Train as ``cfg`` says and return the best value of the monitored metric.

    Leaves in ``cfg.paths.run`` what `fovea.run_folder` lists. The best checkpoint is evaluated on
    the validation split, with ``cfg.test`` on the test split.

    Raises:
        FoveaError: a mistake in configuration or data, or a loss that is no number.
    """
    if cfg.plan:
        print_plan(cfg)
        return None
    folder = Path(cfg.paths.run)
    run_folder.check_writable(folder)
    if devices.is_main_process():
        run_lock.must_take(folder)
        for place in (folder, folder / run_folder.CHECKPOINTS):
            durable.remove_leftovers(place)
    # Of what was typed first: what is changed later on does not make it another run.
    fingerprint = auto_resume.fingerprint(cfg)
    start = None if cfg.resume is None else read_checkpoint(cfg.resume, "last")
    if start is not None:
        said = run_folder.read_overrides(folder)
        cfg = resume.merge(cfg, run_folder.read_config(folder), resume.news(said, overrides))
        overrides = resume.together(said, overrides)
        fingerprint = run_folder.read_summary(folder).get("fingerprint", fingerprint)
        config.check(cfg, "train")
    if cfg.data.check:
        check_images(cfg, folder)
        return None
    began = time.monotonic()
    if start is None:  # a run that goes on has what was found when it began
        tune(cfg, folder)
    experiment = build(cfg, None if start is None else start.global_step)
    if start is None and cfg.tune.batch_size and devices.is_main_process():
        experiment.rows.append(describe_largest(cfg, experiment))
    if start is not None:
        _check_same_data(start, experiment.data)
    devices.check_disk(folder, experiment.task, cfg.checkpoint.keep)
    if devices.is_main_process():
        run_folder.write_record(folder, plain_config(cfg), overrides, environment_record())
        run_folder.write_summary(
            folder,
            state="running",
            error=None,
            fingerprint=fingerprint,
            started=time.time(),
            splits=experiment.data.splits_recorded,
            classes=experiment.data.num_classes,
        )
        console.print_start(folder, experiment, None if start is None else start.path)
    return _train(cfg, experiment, None if start is None else str(start.path), began)


def _train(
    cfg: DictConfig, experiment: Experiment, start: str | None, began: float
) -> float | None:
    """Fit from the checkpoint ``start`` on and finish; whatever ends that early is recorded."""
    try:
        with (
            experiment.data.explaining_dead_workers(),
            explaining_out_of_memory(experiment.trainer, experiment.data),
        ):
            experiment.trainer.fit(
                experiment.task,
                datamodule=experiment.data,
                ckpt_path=start,
                weights_only=True,
            )
        callbacks = experiment.trainer.callbacks  # type: ignore[attr-defined]
        if any(getattr(callback, "pruned", False) for callback in callbacks):
            return give_up(cfg, experiment, began)
        return _finish(cfg, experiment, began)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        ended_early(Path(cfg.paths.run), experiment.trainer, error, began)
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


def _finish(cfg: DictConfig, experiment: Experiment, began: float) -> float | None:
    """Evaluate the best checkpoint, write figures and summary, print where they are."""
    folder, trainer = Path(cfg.paths.run), experiment.trainer
    checkpoint = getattr(trainer, "checkpoint_callback", None)
    best = str(getattr(checkpoint, "best_model_path", "") or "")
    # From the table: a run gone on with after its last step has logged nothing in this process.
    fit_metrics = last_values(folder / "metrics.csv")
    score = getattr(checkpoint, "best_model_score", None)
    if score is None:
        score = fit_metrics.get(cfg.monitor.metric)
    origin = {"run": str(cfg.run_id), "ckpt": best or None}
    if best:
        state = torch.load(best, map_location="cpu", weights_only=True)
        experiment.task.load_state_dict(state["state_dict"])
        origin["weights"] = weights_fingerprint(state["state_dict"])
    metrics, cost = _judge(cfg, experiment, origin)
    objective = None if score is None else float(score)
    if not devices.is_main_process():
        return objective
    curves = folder / "report" / "learning_curves.png"
    with spared("The learning curves", curves):
        plot_learning_curves(folder / "metrics.csv", curves)
    bad = experiment.data.bad_images()
    read, by_pillow = experiment.data.decoded()
    with spared("summary.json", folder):
        run_folder.write_summary(
            folder,
            state="finished",
            seconds=time.monotonic() - began,
            monitor=cfg.monitor.metric,
            objective=objective,
            metrics={**fit_metrics, **metrics},
            best_checkpoint=best or None,
            epochs=trainer.fit_loop.epoch_progress.current.processed,  # type: ignore[attr-defined]
            bad_images=[list(item) for item in bad],
            decoded={"read": read, "by_pillow": by_pillow},
            **cost,
        )
    show_results(trainer.loggers, folder / "report")
    console.print_end(folder, experiment.data, cfg.monitor.metric, objective, metrics, best, bad)
    close_wandb(trainer, {cfg.monitor.metric: objective, **metrics})
    return objective


def _judge(
    cfg: DictConfig, experiment: Experiment, origin: dict[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Predict val and, if it may be touched, test; keep that, and write the report on the last.

    Returns:
        the metrics of each split by name, and what the network costs, the latter on rank 0.
    """
    folder, data, task = Path(cfg.paths.run), experiment.data, experiment.task
    data.views = experiment.views
    found: dict[str, Predictions | None] = {}
    metrics: dict[str, float] = {}
    for split in ("val", "test") if cfg.test else ("val",):
        found[split] = predict_split(task, data, experiment.trainer, split, origin)
        metrics |= logged_metrics(experiment.trainer, split)
    if not devices.is_main_process():
        return metrics, {}
    cost = count_cost(task, experiment.trainer, data.image_shape)
    kept = {
        name: replace(predictions, about={**predictions.about, "cost": cost})
        for name, predictions in found.items()
        if predictions is not None
    }
    for predictions in kept.values():
        keep(folder, predictions)
    if split in kept:
        report(folder / "report", kept[split], images_of_data(data, split), val=kept["val"])
    return metrics, cost
