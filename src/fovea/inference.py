"""A trained network, ready to use: ``fovea.load(run)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from torch import Tensor, nn

from fovea import run_folder
from fovea.data import EvaluationView, to_tensor
from fovea.data.decoding import Picture, TensorPicture, open_file
from fovea.errors import FoveaError
from fovea.experiment import build_model
from fovea.models.checkpoint import read_checkpoint as read_file
from fovea.safety import targets
from fovea.types import Preprocessing


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of fovea's holds, read without running any code that is in it.

    Attributes:
        path: the file.
        config: resolved configuration of the run.
        preprocessing: how its network wants its images.
        class_names: (K,) in the order of the logits.
        weights: names starting with "backbone." and "head."; the averaged ones where the run
            averaged weights.
        epoch: number of the epoch it was made in, from 1.
        global_step: optimiser steps that were made.
        splits: fingerprint of the images of each split.
    """

    path: Path
    config: DictConfig
    preprocessing: Preprocessing
    class_names: list[str]
    weights: dict[str, Tensor]
    epoch: int
    global_step: int
    splits: dict[str, str]


def read_checkpoint(reference: str | Path, which: str = "best") -> Checkpoint:
    """Return the content of the checkpoint that ``reference`` (a run folder or a file) names.

    Args:
        reference: a checkpoint, or a run folder.
        which: "best" or "last", of a run folder; see `run_folder.whole_checkpoint`.

    Raises:
        FoveaError: no such file, damaged, holding code, or not made by fovea.
    """
    path = run_folder.whole_checkpoint(reference, which)
    content = read_file(path)
    record = content.get("fovea")
    if not record:
        raise FoveaError(
            f"{path} was not made by fovea's train command. To evaluate or fine-tune weights from "
            f"elsewhere: model=<name> model.weights={path}"
        )
    try:
        targets.check_stored(record["config"], str(path))
        return Checkpoint(
            path=path,
            config=OmegaConf.create(dict(record["config"])),
            preprocessing=Preprocessing.from_dict(record["preprocessing"]),
            class_names=[str(name) for name in record["class_names"]],
            weights=dict(content["state_dict"]),
            epoch=int(content["epoch"]) + 1,
            global_step=int(content["global_step"]),
            splits=dict(record["splits"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OmegaConfBaseException) as error:
        raise FoveaError(
            f"{path} is not as fovea's train command leaves a checkpoint "
            f"({type(error).__name__}: {error}), and is not used."
        ) from error


class Classifier(nn.Module):
    """Backbone and head in eval mode, with the transform and class names they were trained with.

    Attributes:
        backbone: (B, C, H, W) float -> (B, F).
        head: (B, F) -> (B, K).
        preprocessing: image size, channels, mean, std.
        class_names: (K,).
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.preprocessing = preprocessing
        self.class_names = list(class_names)
        self._view = EvaluationView(preprocessing)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of normalised ``images`` (B, C, H, W) float."""
        return self.head(self.backbone(images))

    def transform(self, image: Image.Image | str | Path) -> Tensor:
        """Return ``image`` (a path or PIL image) as the network wants it: (C, H, W) float32.

        Raises:
            FoveaError: the file is missing or no readable image.
        """
        channels = self.preprocessing.channels
        if isinstance(image, Image.Image):
            picture: Picture = TensorPicture(to_tensor(image, channels))
        else:
            picture = open_file(image, channels)
        return self.preprocessing.normalize(self._view(picture))

    def predict(
        self, images: Sequence[Image.Image | str | Path], top_k: int = 5
    ) -> list[list[tuple[str, float]]]:
        """Return the ``top_k`` most probable classes of each image, as (name, probability)."""
        return self.predict_tensors([self.transform(image) for image in images], top_k)

    @torch.inference_mode()
    def predict_tensors(
        self, images: Sequence[Tensor], top_k: int = 5
    ) -> list[list[tuple[str, float]]]:
        """Return the same for ``images`` that went through `transform`: (C, H, W) float each."""
        parameter = next(self.parameters())
        logits = self(torch.stack(list(images)).to(parameter.device, parameter.dtype)).float()
        probabilities, classes = logits.softmax(1).cpu().topk(min(top_k, logits.shape[1]))
        return [
            [(self.class_names[k], p) for k, p in zip(ks, ps, strict=True)]
            for ks, ps in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]


def load(
    run_or_checkpoint: str | Path,
    device: str | torch.device = "cpu",
    allow_targets: Sequence[str] = (),
) -> Classifier:
    """Return the network of a run folder (its best checkpoint) or of one checkpoint, in eval mode.

    Args:
        run_or_checkpoint: path.
        device: to put it on.
        allow_targets: packages of your own that the run's network is made of; the checkpoint can't
            name others than these and fovea's.

    Example::

        model = fovea.load("outputs/2026-01-31_12-00-00_3fa9c1")
        model.predict(["cat.jpg"])                            # [[("cat", 0.93), …]]
        logits = model(model.transform("cat.jpg")[None])      # (1, K)

    Raises:
        FoveaError: no such run, or a file that is broken, unsafe or not fovea's.
    """
    with targets.allowing(allow_targets):
        checkpoint = read_checkpoint(run_or_checkpoint)
        backbone, head, _ = restore_model(checkpoint)
    model = Classifier(backbone, head, checkpoint.preprocessing, checkpoint.class_names)
    return model.to(device)


def restore_model(checkpoint: Checkpoint) -> tuple[Any, nn.Module, list[tuple[str, str]]]:
    """Return backbone and head with the weights of ``checkpoint``, and rows for the summary."""
    shape, names = checkpoint.preprocessing.image_shape, checkpoint.class_names
    try:
        backbone, head, rows = build_model(checkpoint.config.model, shape, names, load=False)
    except (OmegaConfBaseException, AttributeError) as error:
        raise FoveaError(f"{checkpoint.path} does not say which model it is of: {error}") from error
    pair = nn.ModuleDict({"backbone": backbone, "head": head})
    own = {k: v for k, v in checkpoint.weights.items() if k.startswith(("backbone.", "head."))}
    try:
        pair.load_state_dict(own)
    except RuntimeError as error:
        raise FoveaError(f"{checkpoint.path} does not fit its own configuration: {error}") from None
    source = f"all {len(own)} tensors of {checkpoint.path.name}, epoch {checkpoint.epoch}"
    return backbone, head, [rows[0], ("weights", source)]
