"""What a classifier said about every sample of a split, and how it is gathered over devices."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchmetrics
from torch import Tensor, nn

from fovea.errors import FoveaError
from fovea.evaluation.metrics import label_ranks


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of N samples of one split, on the CPU.

    Attributes:
        indices: (N,) int64, which sample of the split, ascending.
        labels: (N,) int64 in [0, K).
        logits: (N, K) float32.
    """

    indices: Tensor
    labels: Tensor
    logits: Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.indices)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.logits.shape[1]

    @property
    def probabilities(self) -> Tensor:
        """(N, K) float32, the softmax of the logits."""
        return self.logits.softmax(dim=1)

    @property
    def predicted(self) -> Tensor:
        """(N,) int64, the most probable class; the smallest number among equals."""
        return self.logits.argmax(dim=1)

    @property
    def correct(self) -> Tensor:
        """(N,) bool; False where a logit is NaN."""
        return label_ranks(self.logits, self.labels) == 0

    def top_k(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the ``min(k, K)`` most probable classes of each sample, best first.

        Returns:
            probabilities (N, k) float32 and class numbers (N, k) int64.
        """
        probabilities, classes = self.probabilities.sort(dim=1, descending=True, stable=True)
        return probabilities[:, :k], classes[:, :k]

    def save(self, path: Path | str) -> None:
        """Write a compressed ``.npz`` with the three arrays."""
        arrays = {name: getattr(self, name).numpy() for name in ("indices", "labels", "logits")}
        with open(path, "wb") as file:  # a path without .npz would have it appended
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path | str) -> Predictions:
        """Return what `save` wrote.

        Raises:
            FoveaError: there is no such file, or it is not a file of predictions.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    indices=torch.from_numpy(arrays["indices"]),
                    labels=torch.from_numpy(arrays["labels"]),
                    logits=torch.from_numpy(arrays["logits"]),
                )
        except FileNotFoundError as error:
            raise FoveaError(f"There is no file of predictions at {path}.") from error
        except (AttributeError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise FoveaError(
                f"{path} is not a file of predictions: it has to be an .npz with the arrays "
                "indices, labels and logits, as Predictions.save writes it."
            ) from error


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
