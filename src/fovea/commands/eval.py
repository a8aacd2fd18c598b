"""``python src/eval.py``: a checkpoint, or pre-trained weights, on any split of any data set."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning
from omegaconf import DictConfig, OmegaConf, open_dict

from fovea import console, run_folder
from fovea.data import ImageDataModule
from fovea.errors import FoveaError
from fovea.evaluation import write_report
from fovea.experiment import (
    build_data,
    build_model,
    build_node,
    make_trainer,
    plain_config,
    preprocessing_of,
)
from fovea.inference import Checkpoint, read_checkpoint, restore_model
from fovea.machine import devices
from fovea.machine.no_room import spared
from fovea.machine.out_of_memory import explaining_out_of_memory
from fovea.tasks import ClassificationTask, Task
from fovea.tracking import environment_record

log = logging.getLogger("fovea")


def evaluate(
    task: Task,
    data: ImageDataModule,
    trainer: lightning.Trainer,
    split: str,
    folder: Path,
) -> dict[str, float]:
    """Return the metrics of ``task`` on ``split``, each sample counted once on any number of ranks.

    Args:
        task: with the weights to be judged.
        data: prepared.
        trainer: gives devices and precision.
        split: "train" (without augmentation), "val" or "test".
        folder: where rank 0 writes predictions, tables and pictures.

    Raises:
        FoveaError: the data set has no such split.
    """
    dataset = data.dataset(split)
    data.test_split = task.test_split = split
    # The caller says where the numbers go: as one more row of the curves they would mislead.
    loggers, trainer.loggers = trainer.loggers, []
    with data.explaining_dead_workers(), explaining_out_of_memory(trainer, data):
        trainer.test(task, datamodule=data, verbose=False)
    trainer.loggers = loggers
    metrics = {
        k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(f"{split}/")
    }
    if devices.is_main_process() and task.predictions is not None:
        with spared("The report", folder):
            write_report(
                folder,
                task.predictions,
                task.class_names,
                images_of=lambda index: dataset[index].images,
                path_of=dataset.path,
                metrics=metrics,
            )
    return metrics


def run(cfg: DictConfig, overrides: list[str]) -> None:
    """Evaluate as ``cfg`` says; print the metrics and write the report into ``cfg.paths.run``.

    Raises:
        FoveaError: no checkpoint or weights given, classes or head that do not fit the data.
    """
    folder = Path(cfg.paths.run)
    devices.check(cfg.trainer.accelerator, cfg.trainer.devices)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.ckpt is not None:
        data, task, rows = _from_checkpoint(cfg)
    else:
        data, task, rows = _from_published_weights(cfg)
    data.class_counts(cfg.split)  # a split that does not exist is named before anything is written
    trainer = make_trainer(cfg.trainer, folder, logger=False, enable_checkpointing=False)
    run_folder.check_writable(folder)
    if devices.is_main_process():
        run_folder.write_record(folder, plain_config(cfg), overrides, environment_record())
        log.info("\nfovea: %s", folder.name)
        console.print_rows([*data.describe(), *rows, ("split", cfg.split)])
    metrics = evaluate(task, data, trainer, cfg.split, folder)
    if devices.is_main_process():
        run_folder.write_summary(
            folder, state="finished", metrics=metrics, ckpt=cfg.ckpt, split=cfg.split
        )
        log.info("")
        console.print_rows([(key, f"{value:.6f}") for key, value in sorted(metrics.items())])
        console.print_rows([("report", console.shorten(folder))])


Rows = list[tuple[str, str]]


def _from_checkpoint(cfg: DictConfig) -> tuple[ImageDataModule, Task, Rows]:
    """Return the data, and the task as the run of ``cfg.ckpt`` had it, loss included."""
    if cfg.get("model") is not None:
        raise FoveaError(
            f"ckpt={cfg.ckpt} brings its own network; leave model= out, or ckpt= to evaluate "
            "published weights."
        )
    checkpoint = read_checkpoint(cfg.ckpt)
    data = _data_of(cfg, checkpoint)
    backbone, head, rows = restore_model(checkpoint)
    names = checkpoint.class_names
    task: Task = build_node(
        checkpoint.config.task,
        "task",
        backbone=backbone,
        head=head,
        num_classes=len(names),
        class_names=names,
        class_counts=[1] * len(names),  # class weights are of the training loss alone
    )
    return data, task, rows


def _data_of(cfg: DictConfig, checkpoint: Checkpoint) -> ImageDataModule:
    """Return the data set that was asked for, else the run's own, with what was changed of it."""
    given = cfg.get("data")
    with open_dict(cfg):
        if given is None or "_target_" not in given:
            cfg.data = OmegaConf.merge(checkpoint.config.data, given or {})
        if cfg.batch_size is not None:
            cfg.data.batch_size = cfg.batch_size
    data = build_data(cfg, checkpoint.preprocessing)
    _warn_of_seen_images(data, checkpoint, cfg.split)
    data.use_class_order(checkpoint.class_names)
    if data.preprocessing != checkpoint.preprocessing:
        log.warning(
            "The images are prepared otherwise than in training: %s, not %s.",
            data.preprocessing,
            checkpoint.preprocessing,
        )
    return data


def _warn_of_seen_images(data: ImageDataModule, checkpoint: Checkpoint, split: str) -> None:
    """Warn if ``split`` was cut from images that changed since the run cut them.

    Then some of its images may have been in the run's train split, and the score may flatter.
    """
    then, now = checkpoint.splits.get(split), data.split_fingerprints().get(split)
    was_cut = "split_seed" in data.splits_recorded.get(split, {})
    if was_cut and then is not None and then != now:
        log.warning(
            "WARNING: the images of '%s' are not those the run set aside: files or split settings "
            "changed since. Some may have been trained on; do not trust the score.",
            split,
        )


def _from_published_weights(cfg: DictConfig) -> tuple[ImageDataModule, Task, Rows]:
    """Return the data, and a classifier with the published weights that ``cfg.model`` names."""
    if cfg.get("model") is None or cfg.get("data") is None or not cfg.model.weights:
        raise FoveaError(
            "Nothing to evaluate. Give a checkpoint: ckpt=outputs/<run>\n  or pre-trained weights "
            "and a data set: model=resnet50 model.weights=IMAGENET1K_V2 data=imagenet split=val"
        )
    if cfg.batch_size is not None:
        cfg.data.batch_size = cfg.batch_size
    data = build_data(cfg, preprocessing_of(cfg.model))
    names = data.class_names
    backbone, head, rows = build_model(cfg.model, data.image_shape, names, need_head=True)
    task = ClassificationTask(backbone, head, len(names), names, channels_last=cfg.channels_last)
    return data, task, rows
