"""Classification: one label an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from fovea.evaluation import ClassificationMetrics, PredictionCollector
from fovea.evaluation.averaging import average_views
from fovea.optim import FreezeSchedule, NoDecay, Schedule
from fovea.tasks.base import Task
from fovea.tasks.losses import ClassificationLoss, LossName, make_class_weights
from fovea.types import Batch


class ClassificationTask(Task):
    """Learns the label of an image; judges by top-1, top-5, loss and balanced accuracy.

    Logs ``train/loss`` and ``train/lr`` by step, ``train/top1`` by epoch, ``val/...`` and
    ``test/...`` by evaluation. The loss of an evaluation is neither smoothed nor weighted. Several
    views of each image are judged by the mean of their probabilities, or of their logits, and its
    cross-entropy.

    Args:
        num_classes: K, also the size of the head's output.
        class_names: K names, in the order of the labels.
        loss: see `fovea.tasks.losses.ClassificationLoss`.
        label_smoothing: in [0, 1).
        target_threshold: of ``bce``; see `ClassificationLoss`.
        class_weights: None, "auto", or weights by class name; see `make_class_weights`.
        class_counts: training samples of each class, for ``class_weights``.

    The other arguments are those of `Task`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        num_classes: int,
        class_names: Sequence[str],
        *,
        optimizer: Callable[..., Optimizer] | None = None,
        schedule: Schedule | None = None,
        freeze: FreezeSchedule | None = None,
        loss: LossName = "cross_entropy",
        label_smoothing: float = 0.0,
        target_threshold: float | None = None,
        class_weights: Literal["auto"] | Mapping[str, float] | None = None,
        class_counts: Sequence[int] | None = None,
        layer_decay: float = 1.0,
        no_decay: NoDecay = "norms_and_biases",
        param_scales: Sequence[Mapping[str, Any]] = (),
        compile: bool | str = False,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            backbone,
            head,
            optimizer=optimizer,
            schedule=schedule,
            freeze=freeze,
            layer_decay=layer_decay,
            no_decay=no_decay,
            param_scales=param_scales,
            compile=compile,
            channels_last=channels_last,
            seed=seed,
        )
        self.num_classes = num_classes
        self.class_names = [str(name) for name in class_names]
        assert len(self.class_names) == num_classes, "class_names and num_classes disagree"
        weights = make_class_weights(class_weights, self.class_names, class_counts)
        self.loss = ClassificationLoss(loss, label_smoothing, weights, target_threshold)
        self.val_metrics = ClassificationMetrics(num_classes, prefix="val/")
        self.test_metrics = ClassificationMetrics(num_classes, prefix="test/")
        self.collector = PredictionCollector()
        self._hits: Tensor | int = 0
        self._seen = 0

    def metric_names(self) -> list[str]:
        """Return what may be monitored."""
        scores = ["loss", "top1", "balanced_accuracy"] + ["top5"] * (self.num_classes > 5)
        return [*super().metric_names(), "train/top1", *(f"val/{score}" for score in scores)]

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch; soft targets, where there are any, are learned.

        A mixed image counts as right for ``train/top1`` if the prediction is its largest part.
        """
        logits = self(batch.images)
        wanted = batch.labels if batch.targets is None else batch.targets.argmax(dim=1)
        self._hits = self._hits + (logits.detach().argmax(dim=1) == wanted).sum()
        self._seen += len(wanted)
        losses: Tensor = self.loss(logits, batch.labels, batch.targets)
        return losses.mean()

    def epoch_scores(self) -> dict[str, Tensor]:
        """Return the share of right predictions while the epoch was being learned."""
        scores = {}
        if self._seen:
            scores["train/top1"] = self._all_hits() / (self._seen * self.trainer.world_size)
        self._hits, self._seen = 0, 0
        return scores

    def running_scores(self) -> dict[str, Tensor]:
        """Return the last step's loss, and ``train/top1`` of the epoch so far on this rank."""
        scores = super().running_scores()
        if self._seen:
            scores["train/top1"] = torch.as_tensor(self._hits / self._seen)
        return scores

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what was counted in the running epoch, of all ranks: they all come here."""
        super().on_save_checkpoint(checkpoint)
        seen = self._seen * self.trainer.world_size
        checkpoint["train_top1"] = {"hits": int(self._all_hits()), "seen": seen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting; rank zero has the hits of all, however many ranks there were."""
        super().on_load_checkpoint(checkpoint)
        counted = checkpoint["train_top1"]
        self._hits = counted["hits"] if self.global_rank == 0 else 0
        self._seen = counted["seen"] // self.trainer.world_size

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch; entries with an index below 0 do not count."""
        self._count(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/...``."""
        self._log_scores(self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch and keep its logits."""
        logits = self._count(self.test_metrics, batch)
        self.collector.update(logits, batch.labels, batch.indices)

    def on_test_epoch_end(self) -> None:
        """Log the scores under the name of ``test_split`` and gather `predictions`."""
        self._log_scores(self.test_metrics)
        self.predictions = self.collector.compute()
        self.collector.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits (B, K) float32."""
        logits: Tensor = self(batch.images)
        return logits.float()

    def describe(
        self,
        max_epochs: int | None = None,
        steps_per_epoch: int | None = None,
        max_steps: int = -1,
    ) -> list[tuple[str, str]]:
        """Return rows (what, how) for the summary of a run."""
        rows = super().describe(max_epochs, steps_per_epoch, max_steps)
        return [("loss", self.loss.describe()), *rows]

    def _all_hits(self) -> Tensor:
        """Return the number of right predictions in the running epoch, over all ranks."""
        hits = torch.as_tensor(self._hits, device=self.device)
        total = self.trainer.strategy.reduce(hits.clone(), reduce_op="sum")  # reduces in place
        assert isinstance(total, Tensor)
        return total

    def _count(self, metrics: ClassificationMetrics, batch: Batch) -> Tensor:
        logits: Tensor = self(batch.images)
        if batch.average is None:
            losses = self.loss.evaluate(logits, batch.labels)
        else:
            logits = average_views(logits, batch.average)
            losses = cross_entropy(logits, batch.labels, reduction="none")
        metrics.update(logits, batch.labels, batch.indices, losses)
        return logits

    def _log_scores(self, metrics: ClassificationMetrics) -> None:
        for name, score in metrics.compute().items():
            if metrics is self.test_metrics:
                name = name.replace("test/", f"{self.test_split}/", 1)
            self.log_once(name, score, prog_bar=name == "val/top1")
        metrics.reset()
