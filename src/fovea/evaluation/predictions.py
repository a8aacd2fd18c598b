"""What a classifier said about every sample of a split, and how it is gathered over devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor, nn

from fovea.errors import FoveaError
from fovea.evaluation.auroc import areas_and_parts
from fovea.evaluation.metrics import label_ranks
from fovea.evaluation.predictions_file import read_predictions, write_predictions

_CHUNK = 4096
"""Rows whose probabilities are computed at once where N x K of them in float64 are not kept."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of N samples of one split, on the CPU.

    A row whose logits give no probabilities (a NaN, an infinity, nothing but -infinity) is not
    `valid`: it counts as wrong, and what needs probabilities leaves it out. A logit of -infinity
    among others is a class that was ruled out: its probability is 0.

    Attributes:
        indices: (N,) int64, which sample of the split, ascending.
        labels: (N,) int64 in [0, K).
        logits: (N, K) float32.
        paths: N names of the samples, as the data set gives them; empty if unknown.
        class_names: K names, in the order of the class numbers; empty if unknown.
        about: where they come from, in plain types: ``split``, ``data``, ``fingerprint`` (of the
            split's images), ``ckpt``, ``run``, ``views`` and the like.

    Raises:
        ValueError: the sizes of the fields do not agree.
    """

    indices: Tensor
    labels: Tensor
    logits: Tensor
    paths: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, k = self.logits.shape
        if self.indices.shape != (n,) or self.labels.shape != (n,):
            raise ValueError(
                f"{tuple(self.indices.shape)} indices and {tuple(self.labels.shape)} labels for "
                f"{n} rows of logits"
            )
        if len(self.paths) not in (0, n) or len(self.class_names) not in (0, k):
            raise ValueError(
                f"{len(self.paths)} paths and {len(self.class_names)} class names for {n} samples "
                f"of {k} classes"
            )

    def __len__(self) -> int:
        """Return N."""
        return len(self.indices)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.logits.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """K names to show: those of the classes, else their numbers."""
        return self.class_names or tuple(str(number) for number in range(self.num_classes))

    @property
    def sample_names(self) -> tuple[str, ...]:
        """N names to show: the paths, else the indices."""
        return self.paths or tuple(str(index) for index in self.indices.tolist())

    @property
    def probabilities(self) -> Tensor:
        """(N, K) float32, the softmax of the logits."""
        return self.logits.softmax(dim=1)

    @cached_property
    def confidence(self) -> Tensor:
        """(N,) float64, the largest probability of each row; NaN if the row is not `valid`.

        In float64, as those of a network that is sure of itself would all be 1 in float32.
        """
        parts = [rows.double().softmax(dim=1).amax(dim=1) for rows in self.logits.split(_CHUNK)]
        return torch.cat(parts)

    @cached_property
    def valid(self) -> Tensor:
        """(N,) bool, whether the logits of a row give probabilities."""
        return self.logits.amax(dim=1).isfinite()

    @cached_property
    def predicted(self) -> Tensor:
        """(N,) int64, the most probable class; the smallest number among equals.

        Of a row that is not `valid` it says nothing.
        """
        return self.logits.argmax(dim=1)

    @cached_property
    def ranks(self) -> Tensor:
        """(N,) int64, how many classes come before the true one; K if the row is not `valid`."""
        return label_ranks(self.logits, self.labels)

    @property
    def correct(self) -> Tensor:
        """(N,) bool; False where the row is not `valid`."""
        return self.ranks == 0

    @cached_property
    def class_areas(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`auroc.areas_and_parts` of the `valid` rows: seconds for 50,000 samples of 1000 classes.

        For `one_vs_rest_auroc` and `macro_auroc_interval`.
        """
        kept = self.select(self.valid)
        return areas_and_parts(kept.logits, kept.labels)

    def top_k(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the ``min(k, K)`` most probable classes of each sample, best first.

        Returns:
            probabilities (N, k) float32 and class numbers (N, k) int64.
        """
        probabilities, classes = self.probabilities.sort(dim=1, descending=True, stable=True)
        return probabilities[:, :k], classes[:, :k]

    def select(self, rows: Tensor) -> Predictions:
        """Return those of the ``rows``, (M,) int64 row numbers or (N,) bool."""
        if rows.dtype == torch.bool and bool(rows.all()):
            return self
        numbers = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        return Predictions(
            indices=self.indices[numbers],
            labels=self.labels[numbers],
            logits=self.logits[numbers],
            paths=tuple(self.paths[row] for row in numbers.tolist()) if self.paths else (),
            class_names=self.class_names,
            about=self.about,
        )

    def require_samples(self, purpose: str) -> None:
        """Raise `FoveaError` if there is no sample to compute ``purpose`` from."""
        if len(self) == 0:
            raise FoveaError(
                f"{purpose}: there are no predictions, no sample of the split could be read. "
                "data.check=true lists what is wrong with the files."
            )

    def save(self, path: Path | str, dtype: str = "float32") -> None:
        """Write an ``.npz`` that `load` reads, whole or not at all.

        Args:
            path: the file; its folder is made if absent.
            dtype: of the stored logits. "float16" takes half the room: each row is shifted so that
                its largest logit is 0, which changes no probability and can't overflow, and then
                rounded to 11 bits; the predicted class and `valid` stay as they are, other classes
                whose logits are closer than that may become equal.
        """
        write_predictions(Path(path), self, dtype)

    @classmethod
    def load(cls, path: Path | str) -> Predictions:
        """Return what `save` wrote, logits in float32.

        Raises:
            FoveaError: there is no such file, or it is not a file of predictions.
        """
        return read_predictions(Path(path), cls)


class PredictionCollector(nn.Module):
    """Keeps the logits of every counted sample until the split is through.

    Memory: 4 K bytes a sample on the device, and once more for all processes' samples in `compute`
    (ImageNet's 50,000 validation images: 0.2 GB). Every rank has to `update` at least once and to
    call `compute`, which is collective.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rows = _Rows()

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Keep one batch.

        Args:
            logits: (B, K) floating point, kept as float32.
            labels: (B,) int64.
            indices: (B,) int64; entries below 0 are dropped.
        """
        self._rows.update(logits, labels, indices)

    def compute(self) -> Predictions:
        """Return each sample of all processes once, sorted by index, on the CPU."""
        logits, labels, indices = (rows.cpu() for rows in self._rows.compute())
        # torchmetrics makes scalars of one-element tensors
        labels, indices = torch.atleast_1d(labels), torch.atleast_1d(indices)
        logits = torch.atleast_2d(logits)
        order = indices.argsort(stable=True)
        order = order[
            torch.cat([torch.ones(1, dtype=torch.bool), indices[order].diff() > 0])[: len(order)]
        ]
        return Predictions(indices=indices[order], labels=labels[order], logits=logits[order])

    def reset(self) -> None:
        """Forget everything."""
        self._rows.reset()


class _Rows(torchmetrics.Metric):
    """The collector's gathering over processes; `torchmetrics` cannot return a dataclass itself."""

    full_state_update = False

    logits: list[Tensor]
    labels: list[Tensor]
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("logits", "labels", "indices"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        keep = indices >= 0
        self.logits.append(logits.detach()[keep].float())
        self.labels.append(labels[keep])
        self.indices.append(indices[keep])

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        cat = torchmetrics.utilities.dim_zero_cat
        return cat(self.logits), cat(self.labels), cat(self.indices)
