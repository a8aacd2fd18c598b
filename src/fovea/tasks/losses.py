"""Classification losses, one value a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.errors import FoveaError, did_you_mean

LossName = Literal["cross_entropy", "bce"]


class ClassificationLoss(nn.Module):
    """Losses (B,) of logits against labels or soft targets.

    ``cross_entropy`` is torch's; ``bce`` is the binary cross-entropy of each class against the
    rest, averaged over the K classes (Wightman et al. 2021, "ResNet strikes back", section 3; as in
    timm's ``BinaryCrossEntropy``).

    Args:
        name: which of the two.
        label_smoothing: share of each target that is spread evenly over all classes, in [0, 1).
        class_weights: (K,) weight of each class. Their weighted losses are averaged over samples as
            they are, not divided by the weights in the batch as torch does: so a batch has the same
            gradient however it is divided among devices.
        target_threshold: of ``bce``: targets above it, smoothed and mixed as they are, become 1 and
            all others 0, so that both classes of a mixed image count as present (timm's
            ``--bce-target-thresh``). None: targets stay as they are.
    """

    weights: Tensor | None

    def __init__(
        self,
        name: LossName,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        target_threshold: float | None = None,
    ) -> None:
        super().__init__()
        if name not in ("cross_entropy", "bce"):
            known = ("cross_entropy", "bce")
            raise FoveaError(
                f"task.loss is {name!r}: it takes {' or '.join(known)}."
                f"{did_you_mean(str(name), known)}"
            )
        if isinstance(label_smoothing, str) or not 0 <= label_smoothing < 1:
            raise FoveaError(
                f"task.label_smoothing is {label_smoothing!r}: it takes a share in [0, 1)."
            )
        if target_threshold is not None and (name != "bce" or not 0 <= target_threshold < 1):
            raise FoveaError(
                f"task.target_threshold is {target_threshold!r}: it takes a share in [0, 1), with "
                "task.loss=bce."
            )
        self.name = name
        self.target_threshold = target_threshold
        self.label_smoothing = label_smoothing
        self.register_buffer("weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return losses (B,) for training.

        Args:
            logits: (B, K) floating point.
            labels: (B,) int64.
            targets: (B, K) soft labels that stand instead of ``labels``.
        """
        logits = logits.float()  # half precision is too coarse for a softmax over many classes
        if self.name == "cross_entropy":
            return F.cross_entropy(
                logits,
                labels if targets is None else targets.float(),
                weight=self.weights,
                label_smoothing=self.label_smoothing,
                reduction="none",
            )
        classes = logits.shape[1]
        soft = F.one_hot(labels, classes).float() if targets is None else targets.float()
        weight = 1.0 if self.weights is None else soft @ self.weights
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.target_threshold is not None:
            soft = soft.gt(self.target_threshold).float()
        losses = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(dim=1)
        return losses * weight

    def evaluate(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return losses (B,) for evaluation: neither smoothed nor weighted."""
        logits = logits.float()
        if self.name == "cross_entropy":
            return F.cross_entropy(logits, labels, reduction="none")
        soft = F.one_hot(labels, logits.shape[1]).float()
        return F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(dim=1)

    def describe(self) -> str:
        """Return name and settings for the summary of a run."""
        text = self.name.replace("_", "-")
        if self.label_smoothing:
            text += f", label smoothing {self.label_smoothing:g}"
        if self.target_threshold is not None:
            text += f", targets 1 above {self.target_threshold:g}, else 0"
        if self.weights is not None:
            least, most = float(self.weights.min()), float(self.weights.max())
            text += f", class weights {least:.3g} to {most:.3g}"
        return text


def make_class_weights(
    choice: Literal["auto"] | Mapping[str, float] | None,
    class_names: Sequence[str],
    class_counts: Sequence[int] | None,
) -> Tensor | None:
    """Return (K,) float32 weights, or None if all classes weigh the same.

    ``"auto"`` weighs classes inversely to their count, ``N / (K * n_k)`` as scikit-learn's
    "balanced"; a map gives weights by class name, 1 for those it leaves out. Either is scaled so
    that the mean weight of a training sample is 1, which keeps the learning rate's meaning.

    Args:
        choice: None, "auto", or weights by class name.
        class_names: K names, in the order of the labels.
        class_counts: (K,) samples of each class in the training split.

    Raises:
        FoveaError: a name that is no class, a weight that is no number > 0, no counts for "auto".
    """
    if choice is None:
        return None
    if class_counts is None or len(class_counts) != len(class_names):
        raise FoveaError(
            f"task.class_weights={choice!r} needs the counts of the {len(class_names)} classes "
            f"(class_counts), and got {class_counts!r}."
        )
    counts = torch.tensor([float(count) for count in class_counts])
    if isinstance(choice, Mapping):
        weights = torch.tensor(_by_name(choice, class_names))
    elif choice == "auto":
        weights = 1 / counts.clamp(min=1)
    else:
        raise FoveaError(
            f"task.class_weights is {choice!r}: it takes null, auto, or a map from class names to "
            "weights, e.g. {cat: 2.0}."
        )
    return weights * counts.sum() / (weights * counts).sum()


def _by_name(choice: Mapping[str, float], class_names: Sequence[str]) -> list[float]:
    weights = {str(name): weight for name, weight in choice.items()}
    for name, weight in weights.items():
        if name not in class_names:
            some = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
            raise FoveaError(
                f"task.class_weights names '{name}', which is no class."
                f"{did_you_mean(name, class_names)} Classes: {some}"
            )
        if isinstance(weight, bool | str) or not weight > 0:
            raise FoveaError(f"task.class_weights.{name} is {weight!r}: it takes a number > 0.")
    return [float(weights.get(name, 1.0)) for name in class_names]
