"""A network and the data it is judged on: out of a checkpoint, or of published weights."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from fovea.data import Corruption, ImageDataModule
from fovea.data.imagenet import imagenet_classes
from fovea.data.several_views import make_views
from fovea.errors import FoveaError
from fovea.experiment import build_data, build_model, build_node, preprocessing_of
from fovea.inference import Checkpoint, read_checkpoint, restore_model
from fovea.judging.classes import restrict_head
from fovea.judging.harder import plan_corruptions
from fovea.judging.predicting import weights_fingerprint
from fovea.models import Backbone
from fovea.tasks import ClassificationTask, Task

log = logging.getLogger("fovea")

Rows = list[tuple[str, str]]


@dataclass
class Candidate:
    """A network to be judged.

    Attributes:
        config: what it was built of: that of the command, with the data set as it is used.
        data: prepared, with its ``views``.
        task: with an output for each class of the data, in the order of the data.
        rows: (what, how) on the network, for the summary at the start.
        origin: what is noted with its predictions.
        reference: the run folder or checkpoint; None for published weights.
        val_is_fair: whether nothing in the val split can have been trained on.
        plan: the corruptions to be judged under, too; see `plan_corruptions`.
    """

    config: DictConfig
    data: ImageDataModule
    task: Task
    rows: Rows
    origin: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    val_is_fair: bool = True
    plan: list[Corruption] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run, or the published weights."""
        return str(self.origin.get("run") or self.origin.get("ckpt"))


def build_candidate(cfg: DictConfig, reference: str | None) -> Candidate:
    """Return the network of the checkpoint ``reference``, or the published one that ``cfg`` names.

    Raises:
        FoveaError: nothing or too much to evaluate, classes that do not fit, a split, views or
            corruptions that the data does not have.
    """
    cfg = deepcopy(cfg)
    found = _published(cfg) if reference is None else _of_checkpoint(cfg, reference)
    found.data.class_counts(cfg.split)  # a split that does not exist is named before the work
    choice = cfg.views if isinstance(cfg.views, str) else OmegaConf.to_container(cfg.views)
    found.data.views = make_views(choice, found.data.preprocessing, found.data.hflip)  # type: ignore[arg-type]
    if found.data.views.count > 1:
        found.rows.append(("views", found.data.views.describe()))
    found.plan = plan_corruptions(found.data, cfg.corruptions, cfg.severities)
    return found


def _of_checkpoint(cfg: DictConfig, reference: str) -> Candidate:
    """Return the task as the run of the checkpoint had it, loss included."""
    if cfg.get("model") is not None:
        raise FoveaError(
            f"ckpt={reference} brings its own network; leave model= out, or ckpt= to evaluate "
            "published weights."
        )
    checkpoint = read_checkpoint(reference)
    data = _data_of(cfg, checkpoint)
    backbone, head, rows = restore_model(checkpoint)
    names = data.class_names
    head, matched = restrict_head(head, checkpoint.class_names, names, data.found.layout)
    task: Task = build_node(
        checkpoint.config.task,
        "task",
        backbone=backbone,
        head=head,
        num_classes=len(names),
        class_names=names,
        class_counts=[1] * len(names),  # class weights are of the training loss alone
        **({"class_weights": None} if "class_weights" in checkpoint.config.task else {}),
    )
    origin = {
        "run": str(OmegaConf.select(checkpoint.config, "run_id")),
        "ckpt": str(checkpoint.path),
        "weights": weights_fingerprint(checkpoint.weights),
    }
    fair = not _may_be_seen(data, checkpoint, "val")
    return Candidate(cfg, data, task, [*rows, *matched], origin, reference, fair)


def _data_of(cfg: DictConfig, checkpoint: Checkpoint) -> ImageDataModule:
    """Return the data set that was asked for, else the run's own, with what was changed of it."""
    given = cfg.get("data")
    with open_dict(cfg):
        if given is None or "_target_" not in given:
            cfg.data = OmegaConf.merge(checkpoint.config.data, given or {})
        if cfg.batch_size is not None:
            cfg.data.batch_size = cfg.batch_size
    data = build_data(cfg, checkpoint.preprocessing)
    warn_of_seen_images(data, checkpoint, cfg.split)
    if data.preprocessing != checkpoint.preprocessing:
        log.warning(
            "The images are prepared otherwise than in training: %s, not %s.",
            data.preprocessing,
            checkpoint.preprocessing,
        )
    return data


def warn_of_seen_images(data: ImageDataModule, checkpoint: Checkpoint, split: str) -> None:
    """Warn if ``split`` was cut from images that changed since the run cut them.

    Then some of its images may have been in the run's train split, and the score may flatter.
    """
    if _may_be_seen(data, checkpoint, split):
        log.warning(
            "WARNING: the images of '%s' are not those the run set aside: files or split settings "
            "changed since. Some may have been trained on; do not trust the score.",
            split,
        )


def _may_be_seen(data: ImageDataModule, checkpoint: Checkpoint, split: str) -> bool:
    then, now = checkpoint.splits.get(split), data.split_fingerprints().get(split)
    was_cut = "split_seed" in data.splits_recorded.get(split, {})
    return was_cut and then is not None and then != now


def _published(cfg: DictConfig) -> Candidate:
    """Return a classifier with the published weights that ``cfg.model`` names."""
    if cfg.get("model") is None or cfg.get("data") is None or not cfg.model.weights:
        raise FoveaError(
            "Nothing to evaluate. Give a checkpoint: ckpt=outputs/<run>\n  or pre-trained weights "
            "and a data set: model=resnet50 model.weights=IMAGENET1K_V2 data=imagenet split=val\n"
            "  or predictions that were kept: predictions=outputs/<run>"
        )
    if cfg.batch_size is not None:
        cfg.data.batch_size = cfg.batch_size
    data = build_data(cfg, preprocessing_of(cfg.model))
    backbone, head, rows = _published_network(cfg.model, data)
    names = data.class_names
    task = ClassificationTask(backbone, head, len(names), names, channels_last=cfg.channels_last)
    weights = cfg.model.weights
    origin = {
        "ckpt": f"{backbone.name} {weights}",
        "weights": weights_fingerprint(task.state_dict()),
    }
    # What a data set cuts from its train images is what others train on.
    fair = "cut_from" not in data.splits_recorded.get("val", {})
    return Candidate(cfg, data, task, rows, origin, None, fair)


def _published_network(
    model: DictConfig, data: ImageDataModule
) -> tuple[Backbone, nn.Module, Rows]:
    """Return backbone and head; of ImageNet's 1000 outputs those of the data's classes."""
    shape, names, words = data.image_shape, data.class_names, imagenet_classes()
    everything = list(words.values())
    if len(names) < len(everything) and {words.get(n, n) for n in names} <= set(everything):
        try:
            backbone, head, rows = build_model(model, shape, everything, need_head=True)
        except FoveaError:
            pass  # weights of a classifier for these classes alone
        else:
            head, matched = restrict_head(head, everything, names, data.found.layout)
            return backbone, head, [*rows, *matched]
    return build_model(model, shape, names, need_head=True)
