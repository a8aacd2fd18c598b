"""Scores of a classifier over a whole split, the same on any number of devices."""

from __future__ import annotations

import torch
import torchmetrics
from torch import Tensor

FRACTIONS = 2**24
"""Losses are summed as a whole part and a number of 1 / FRACTIONS, both int64: integers add up to
the same total in any order, so the mean does not depend on how samples were dealt to devices, and
no float64 is needed (Apple's MPS has none). Each loss is rounded by at most 3e-8."""

LARGEST_LOSS = 2.0**40
"""A sample's loss from here on makes the mean infinite; below it 2**22 samples fit in int64."""


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) int64 ranks of the true labels, 0 where the label is the prediction.

    Ties go to the class with the smaller number, as in ``argmax``: a network whose logits are all
    equal predicts class 0, it is not right everywhere. A row that gives no probabilities ranks last
    (K): one with a NaN or an infinite logit, or nothing but -infinity.

    Args:
        logits: (B, K) floating point.
        labels: (B,) int64 in [0, K).
    """
    own = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    valid = logits.amax(dim=1).isfinite() & ~logits.isnan().any(dim=1)
    return torch.where(valid, ahead.sum(dim=1), logits.shape[1])


class ClassificationMetrics(torchmetrics.Metric):
    """Top-1, top-5, mean loss, balanced accuracy and the recall of every class.

    Only samples with an index >= 0 count (see `fovea.types.Batch`), so padding and unreadable files
    change nothing. All states are integer sums over samples and over processes; `compute` is a
    collective call that every rank has to make.

    Args:
        num_classes: K.
        prefix: put before every key of `compute`, e.g. ``"val/"``.
        sync_on_compute: False where one process alone counts all samples.

    Source: balanced accuracy is the mean recall over the classes that occur (Brodersen et al. 2010,
    eq. 3), as in ``sklearn.metrics.balanced_accuracy_score``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    correct: Tensor
    correct_top5: Tensor
    seen: Tensor
    loss_whole: Tensor
    loss_fraction: Tensor
    infinite_losses: Tensor

    def __init__(self, num_classes: int, prefix: str = "", sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.num_classes = num_classes
        self.prefix = prefix
        zeros = torch.zeros(num_classes, dtype=torch.int64)
        zero = torch.zeros((), dtype=torch.int64)
        self.add_state("correct", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("seen", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("correct_top5", zero.clone(), dist_reduce_fx="sum")
        self.add_state("loss_whole", zero.clone(), dist_reduce_fx="sum")
        self.add_state("loss_fraction", zero.clone(), dist_reduce_fx="sum")
        self.add_state("infinite_losses", zero.clone(), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor, losses: Tensor) -> None:
        """Count one batch.

        Args:
            logits: (B, K) floating point.
            labels: (B,) int64 in [0, K).
            indices: (B,) int64; entries below 0 are not counted.
            losses: (B,) floating point, one loss a sample, >= 0.
        """
        # Weights of 0 and 1, not a selection: shapes stay fixed and the device is not stalled.
        counts = (indices >= 0).long()
        ranks = label_ranks(logits.detach(), labels)
        self.correct.scatter_add_(0, labels, counts * (ranks == 0))
        self.seen.scatter_add_(0, labels, counts)
        self.correct_top5 += (counts * (ranks < 5)).sum()
        losses = losses.detach().float()
        usable = losses.abs() < LARGEST_LOSS  # False for NaN as well
        losses = torch.where(usable, losses, 0.0)
        whole = losses.floor()
        self.loss_whole += (counts * whole.long()).sum()
        self.loss_fraction += (counts * ((losses - whole) * FRACTIONS).round().long()).sum()
        self.infinite_losses += (counts * ~usable).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return float32 scalars ``top1``, ``top5``, ``loss`` and ``balanced_accuracy``.

        Rates lie in [0, 1]. ``top5`` is left out for five classes or fewer, where it would be 1
        whatever the network does. Everything is NaN if no sample was counted; the loss is infinite
        if a sample's loss was NaN, infinite or above 2**40.
        """
        total = self.seen.sum()
        scores = {"top1": _ratio(self.correct.sum(), total)}
        if self.num_classes > 5:
            scores["top5"] = _ratio(self.correct_top5, total)
        loss = (_precise(self.loss_whole) + _precise(self.loss_fraction) / FRACTIONS) / total
        scores["loss"] = torch.where(self.infinite_losses > 0, torch.inf, loss.float())
        scores["balanced_accuracy"] = self._recall().nanmean()
        return {f"{self.prefix}{name}": score for name, score in scores.items()}

    def per_class(self) -> Tensor:
        """Return (K,) float32 recall of each class over all processes, NaN for one never seen."""
        with self.sync_context(should_sync=self._to_sync):
            return self._recall()

    def class_counts(self) -> Tensor:
        """Return (K,) int64 counted samples of each class over all processes."""
        with self.sync_context(should_sync=self._to_sync):
            return self.seen.clone()

    def _recall(self) -> Tensor:
        return _ratio(self.correct, self.seen)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return ``part / whole`` of int64 counts as float32."""
    return _precise(part).div(whole).float()


def _precise(count: Tensor) -> Tensor:
    """Return an int64 ``count`` in the most precise floating point type its device has."""
    return count.float() if count.device.type == "mps" else count.double()
