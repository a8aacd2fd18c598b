"""From a configuration to a run: the one module that builds objects out of YAML.

Everything it builds takes plain typed arguments, so that notebooks and tests may build the same
things without a configuration.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict

from fovea import arguments, console, run_folder
from fovea.checkpoints import generations
from fovea.checkpoints.checkpoint_io import AtomicCheckpointIO
from fovea.checkpoints.schedule import LastCheckpoint
from fovea.data import ImageDataModule, ShardsDataModule
from fovea.data.several_views import Views, make_views
from fovea.errors import FoveaError, did_you_mean
from fovea.machine import devices, ranks
from fovea.machine.accumulation import AgreedAccumulation, find_accumulation
from fovea.models import Backbone, load_weights, weights_preprocessing
from fovea.recipes import Built, document_rows, unlike_variant
from fovea.safety import redaction, targets
from fovea.tasks import NonFiniteGuard, Task
from fovea.tasks.idle_hooks import skip_idle_hooks
from fovea.tracking import EpochLines, MetricsCSV, environment_record
from fovea.types import Preprocessing


@dataclass
class Experiment:
    """What a configuration builds, ready for ``trainer.fit(task, data)``.

    Attributes:
        data: prepared.
        task: with initial or loaded weights.
        trainer: with callbacks and loggers.
        rows: (what, how) for the summary at the start.
        steps_per_epoch: optimiser steps.
        views: of the evaluation at the end.
    """

    data: ImageDataModule
    task: Task
    trainer: lightning.Trainer
    rows: list[tuple[str, str]]
    steps_per_epoch: int
    views: Views


class RecordInCheckpoint(Callback):
    """Stores what `fovea.load` needs to rebuild the network in each checkpoint: plain types."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the record under the key "fovea"; the table is to hold all steps before it."""
        checkpoint["fovea"] = self.record
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.sync()


def compose(overrides: list[str] | None = None, command: str = "train") -> DictConfig:
    """Return the checked configuration that ``python src/<command>.py <overrides>`` would use.

    For notebooks and tests. Files of the run go where ``paths.run`` says: a new folder name is
    made up, but not the folder.

    Raises:
        FoveaError: as the command would say it.
    """
    words = arguments.prepare_arguments(command, list(overrides or [])).words
    words = [word for word in words if not word.startswith("hydra.")]
    cfg = arguments.compose_checked(command, words)
    with open_dict(cfg):
        cfg.paths.run = str(Path(cfg.paths.outputs, str(cfg.run_id)).absolute())
    return cfg


def build_node(node: Any, key: str, **arguments: Any) -> Any:
    """Return what ``node`` describes, given the ``arguments`` that are known only at run time.

    A node with ``_partial_: true`` is returned as a `functools.partial`. The arguments never pass
    through OmegaConf, which would turn dataclasses into dictionaries.

    Raises:
        FoveaError: a class that configurations may not name (`fovea.safety.targets`); a parameter
            that is missing, that the class does not take, or whose value it refuses; names ``key``,
            chained to what the class raised.
    """
    plain = _resolved(node)
    targets.check_plain(plain, key)
    try:
        factory = instantiate(plain, _partial_=True, _convert_="all")
        return factory if plain.get("_partial_") else factory(**arguments)
    except InstantiationException as error:  # of a node inside this one
        if isinstance(error.__cause__, FoveaError):
            raise error.__cause__ from None
        raise FoveaError(f"{key}: {error}") from error
    except (TypeError, ValueError, IndexError, MisconfigurationException) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        hint = f". Its keys: --cfg job --package {key}" if "argument" in str(error) else ""
        hint += f"; without this one: ~{key}.{unknown[1]}" if unknown else ""
        raise FoveaError(f"{key}: {error}{hint}") from error


def _resolved(node: Any) -> Any:
    """Return ``node`` as plain dicts and lists: what is checked is what will be built."""
    if OmegaConf.is_config(node):
        return OmegaConf.to_container(node, resolve=True)
    if isinstance(node, dict):
        return {key: _resolved(value) for key, value in node.items()}
    return node


def build_nodes(nodes: Any, key: str) -> list[Any]:
    """Return what each node in the mapping ``nodes`` describes, those set to null left out."""
    chosen = {} if nodes is None else nodes
    return [build_node(node, f"{key}.{name}") for name, node in chosen.items() if node is not None]


def build_data(cfg: DictConfig, weights_need: Preprocessing | None = None) -> ImageDataModule:
    """Return the data module of ``cfg.data``, prepared: its classes and shapes are known."""
    data = unprepared_data(cfg, weights_need)
    data.prepare()
    return data


def unprepared_data(cfg: DictConfig, weights_need: Preprocessing | None = None) -> ImageDataModule:
    """Return the data module of ``cfg.data``, which has looked for nothing yet."""
    augment = build_node(cfg.augment, "augment") if cfg.get("augment") else None
    node = {key: value for key, value in cfg.data.items_ex() if key != "check"}
    redaction.check_complete(_resolved(node), "data")
    data: ImageDataModule = build_node(node, "data", augment=augment)
    if weights_need is not None:
        data.use_preprocessing(weights_need)
    return data


def build_model(
    model: DictConfig,
    shape: tuple[int, int, int],
    class_names: list[str],
    *,
    load: bool = True,
    need_head: bool = False,
) -> tuple[Backbone, torch.nn.Module, list[tuple[str, str]]]:
    """Return backbone, head and the summary's rows on where the weights came from.

    Args:
        model: a choice of ``conf/model``.
        shape: (C, H, W) of the images.
        class_names: of the data, in label order; as many as the head has outputs.
        load: False leaves ``weights`` alone, for a checkpoint that is loaded afterwards.
        need_head: the weights must hold a classifier for these classes, since nothing is trained.

    Raises:
        FoveaError: unknown model or weights, weights that do not fit.
    """
    channels, size, _ = shape
    node = {k: v for k, v in model.items() if k not in {"head", "weights"}}
    backbone: Backbone = build_node(node, "model", in_channels=channels, image_size=size)
    head = build_node(
        model.head, "model.head", num_features=backbone.num_features, num_classes=len(class_names)
    )
    count = sum(p.numel() for p in [*backbone.parameters(), *head.parameters()])
    rows = [("model", f"{backbone.name} ({backbone.library}), {count / 1e6:.2f} M parameters")]
    if not (model.get("weights") and load):
        return backbone, head, [*rows, ("weights", "random")]
    loaded = load_weights(backbone, head, model.weights, class_names=class_names)
    if need_head and not loaded.head.startswith("loaded"):
        raise FoveaError(
            f"model.weights={model.weights} brings no classifier for the "
            f"{len(class_names)} classes of the data ({loaded.head}), so there is nothing to "
            "evaluate. Train one first: "
            f"python src/train.py model={backbone.name} model.weights={model.weights} …"
        )
    return backbone, head, rows + loaded.rows()


def preprocessing_of(model: DictConfig) -> Preprocessing | None:
    """Return how the weights that ``model`` names want their images; None if they do not say."""
    if not model.weights:
        return None
    return weights_preprocessing(model.get("name", ""), model.get("library", ""), model.weights)


def build(cfg: DictConfig, resume_step: int | None = None) -> Experiment:
    """Build all that ``cfg`` describes, with what its ``allow_targets`` lets it name: see `_build`.

    Raises:
        FoveaError: as `_build` does.
    """
    with targets.allowing(cfg.allow_targets):
        return _build(cfg, resume_step)


def _build(cfg: DictConfig, resume_step: int | None) -> Experiment:
    """Build all that ``cfg`` (of the train command) describes, checking as much as can be checked.

    Args:
        cfg: composed, with ``paths.run`` set.
        resume_step: optimiser steps that the run had made, when one is gone on with: its weights
            come from its checkpoint then, and its table of metrics is cut back to that step.

    Raises:
        FoveaError: data missing or unreadable, weights that do not fit, a batch that does not
            divide, devices that are not there, a parameter no class takes.
    """
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    devices.check(cfg.trainer.accelerator, cfg.trainer.devices)
    model = cfg.model
    data = build_data(cfg, preprocessing_of(model))
    if cfg.test:
        data.class_counts("test")  # says now, not after the training, if there is none
    views = make_views(_resolved(cfg.views), data.preprocessing, data.hflip)
    backbone, head, model_rows = build_model(
        model, data.image_shape, data.class_names, load=resume_step is None
    )
    if resume_step is not None:
        model_rows[-1] = ("weights", "from the checkpoint")
    elif model.weights is None and backbone.initial_images:
        batches = data.sample("train", backbone.initial_images)
        model_rows[-1] = ("weights", backbone.initialize(batches))
    task = build_task(cfg, backbone, head, data.class_names, data.class_counts("train"))
    found = _find_accumulation(cfg, task, data)
    plain = redaction.redact(plain_config(cfg))
    record = {
        "format": 1,
        "config": plain,
        "preprocessing": data.preprocessing.to_dict(),
        "class_names": data.class_names,
        "splits": data.split_fingerprints(),
    }
    extra: list[Callback] = [RecordInCheckpoint(record)]
    if found:
        extra.append(AgreedAccumulation(partial(_amend_accumulation, Path(cfg.paths.run), plain)))
    trainer = build_trainer(cfg, plain, extra, resume_step or 0)
    data.check_batch(trainer.world_size, trainer.accumulate_grad_batches)
    monitored = str(cfg.monitor.metric)
    if monitored not in task.metric_names():
        raise FoveaError(
            f"monitor.metric={monitored}: nothing of that name is logged."
            f"{did_you_mean(monitored, task.metric_names())}\n"
            f"  It is one of: {', '.join(task.metric_names())}"
        )
    epochs, steps = cfg.trainer.max_epochs, steps_per_epoch(trainer, data)
    seen = [("views at the end", views.describe())] if views.count > 1 else []
    rows = [*data.describe(), *seen, *model_rows, *task.describe(epochs, steps, trainer.max_steps)]
    rows += _document_rows(cfg, data, task, trainer)
    return Experiment(data, task, trainer, rows, steps, views)


def _document_rows(
    cfg: DictConfig, data: ImageDataModule, task: Task, trainer: lightning.Trainer
) -> list[tuple[str, str]]:
    """Return rows on what the recipe's document promises, and in what the run differs from it."""
    if cfg.get("expected") is None:
        return []
    size = data.image_shape[-1]
    resized = data.augment.resolved_crop(size) == "resized"
    built = Built(
        epochs=cfg.trainer.max_epochs,
        global_batch=data.batch_size,
        train_size=data.augment.train_size.largest(size) if resized else size,
        eval_size=size,
        eval_resize=data.preprocessing.resize,
        classes=data.num_classes,
        train_images=data.split_sizes["train"],
        parameters=sum(parameter.numel() for parameter in task.parameters()),
        weights=None if cfg.model.weights is None else str(cfg.model.weights),
        in_shards=isinstance(data, ShardsDataModule),
    )
    normed = any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in task.modules())
    share = data.per_device_batch(trainer.world_size, trainer.accumulate_grad_batches)
    expected = _resolved(cfg.expected)
    rows = document_rows(expected, built, share if normed else None)
    unlike = unlike_variant(expected, built.epochs, partial(OmegaConf.select, cfg))
    return rows + [("differs", line) for line in unlike]


def build_task(
    cfg: DictConfig,
    backbone: Backbone,
    head: torch.nn.Module,
    class_names: list[str],
    class_counts: list[int],
) -> Task:
    """Return the task of ``cfg.task``, with the optimiser and the schedules of its run.

    Args:
        cfg: of the train command.
        backbone: images -> features.
        head: features -> what the task needs.
        class_names: in label order.
        class_counts: training images of each class.
    """
    task: Task = build_node(
        cfg.task,
        "task",
        backbone=backbone,
        head=head,
        num_classes=len(class_names),
        class_names=class_names,
        class_counts=class_counts,
        optimizer=build_node(cfg.optimizer, "optimizer"),
        schedule=build_node(cfg.scheduler, "scheduler"),
        freeze=build_node(cfg.freeze, "freeze"),
    )
    return task


def _find_accumulation(cfg: DictConfig, task: Task, data: ImageDataModule) -> bool:
    """Write a number in place of ``trainer.accumulate_grad_batches=auto``; return if it was that.

    A run that is gone on with later has the number, wherever it goes on.
    """
    if cfg.trainer.accumulate_grad_batches != "auto":
        return False
    trainer = make_trainer(
        cfg.trainer, Path(cfg.paths.run), logger=False, enable_checkpointing=False
    )
    number = find_accumulation(task, data, trainer, cfg.trainer.max_epochs, keeps_average(cfg))
    cfg.trainer.accumulate_grad_batches = number
    return True


def keeps_average(cfg: DictConfig) -> bool:
    """Return whether the run keeps averaged weights beside its weights, as large as they are."""
    return bool(cfg.callbacks and cfg.callbacks.get("ema"))


def _amend_accumulation(folder: Path, plain: dict[str, Any], number: int) -> None:
    """Record that another rank needs a larger accumulation than the one found here."""
    plain["trainer"]["accumulate_grad_batches"] = number
    if devices.is_main_process():
        run_folder.amend_config(folder, "trainer.accumulate_grad_batches", number)
        console.log.info("  accumulated         %d, as one of the ranks needs", number)


def steps_per_epoch(trainer: lightning.Trainer, data: ImageDataModule) -> int:
    """Return the optimiser steps of an epoch, limits on the number of batches included."""
    accumulate = trainer.accumulate_grad_batches
    global_batches = data.split_sizes["train"] // data.batch_size
    return count_steps(global_batches, accumulate, batch_limit(trainer))


def batch_limit(trainer: lightning.Trainer | DictConfig) -> float | None:
    """Return the limit on the micro-batches of an epoch, of a Trainer or its configuration."""
    return trainer.overfit_batches or trainer.limit_train_batches  # type: ignore[union-attr]


def count_steps(global_batches: int, accumulate: int, limit: float | None) -> int:
    """Return the optimiser steps of an epoch.

    Args:
        global_batches: whole ones, that the epoch's images make.
        accumulate: micro-batches of a step.
        limit: on the micro-batches of an epoch: a number (int), a share (float), or None.

    Raises:
        FoveaError: none is left.
    """
    batches = global_batches * accumulate
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif limit is not None:
        batches = min(batches, limit)
    if not batches:
        raise FoveaError(
            f"No batch is left to train on: {limit} of the {global_batches * accumulate} of an "
            "epoch (trainer.limit_train_batches, trainer.overfit_batches). Let it be more."
        )
    return math.ceil(batches / accumulate)


def build_trainer(
    cfg: DictConfig, plain: dict[str, Any], extra: list[Callback], resume_step: int = 0
) -> lightning.Trainer:
    """Return the Trainer with its callbacks and loggers; metrics.csv is always one of them."""
    folder = Path(cfg.paths.run)
    when = {"every_n_steps": cfg.checkpoint.every_n_steps}
    when["every_minutes"] = cfg.checkpoint.every_minutes
    last = LastCheckpoint(folder / run_folder.CHECKPOINTS, **when)
    callbacks = build_nodes(cfg.get("callbacks"), "callbacks")
    bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
    if not console.is_terminal():  # no progress bars into files
        callbacks, bars = [callback for callback in callbacks if callback not in bars], []
    loggers = [MetricsCSV(folder, resume_step), *build_nodes(cfg.get("logger"), "logger")]
    for logger in loggers:
        logger.log_hyperparams({**plain, "environment": environment_record()})
    return make_trainer(
        cfg.trainer,
        folder,
        # The last checkpoint first: at the end it is saved before weight averaging takes over.
        callbacks=[
            last,
            *callbacks,
            *extra,
            _nonfinite_guard(cfg, folder / run_folder.CHECKPOINTS / generations.LAST),
            EpochLines(),
        ],
        plugins=[AtomicCheckpointIO(cfg.checkpoint.keep)],
        logger=loggers,
        enable_progress_bar=bool(bars),
    )


def _nonfinite_guard(cfg: DictConfig, last: Path) -> NonFiniteGuard:
    def last_checkpoint() -> Path | None:
        whole = (path for path in generations.existing(last) if not generations.damage(path))
        return next(whole, None)

    return NonFiniteGuard(cfg.on_nan, cfg.on_nan_limit, Path(cfg.paths.run), last_checkpoint)


def make_trainer(node: DictConfig, folder: Path, **settings: Any) -> lightning.Trainer:
    """Return the Trainer that ``node`` describes, with what holds for every command.

    Args:
        node: a choice of ``conf/trainer``.
        folder: of the run.
        settings: further parameters of the Trainer.
    """
    timeout = float(node.collective_timeout)
    own = {key: value for key, value in node.items_ex() if key != "collective_timeout"}
    if own["accumulate_grad_batches"] == "auto":
        own["accumulate_grad_batches"] = 1  # until it is found; evaluation has no use for it
    trainer: lightning.Trainer = build_node(
        own,
        "trainer",
        precision=devices.precision(node.precision, node.accelerator),
        default_root_dir=str(folder),
        enable_model_summary=False,
        use_distributed_sampler=False,  # fovea's samplers shard by themselves, exactly
        **{"enable_progress_bar": console.is_terminal(), **settings},
    )
    ranks.watch_over(trainer, folder, timeout)
    skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]
    return trainer


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """Return ``cfg`` resolved, as plain dicts and lists."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
