"""The mean of what several views of an image say: of probabilities, or of logits."""

from __future__ import annotations

from torch import Tensor

from fovea.types import ViewAverage


def average_views(logits: Tensor, average: ViewAverage) -> Tensor:
    """Return (B, K) float32, whose softmax is what the views of each image say together.

    Of probabilities it is the logarithm of their mean: Krizhevsky et al. 2012, "ImageNet
    Classification with Deep Convolutional Neural Networks", section 4.1, averages the softmax of
    ten crops so.

    Args:
        logits: (B * V, K) floating point, the views of an image in turn.
        average: weights of the V views, and what is averaged.
    """
    logits = logits.float()
    weights = logits.new_tensor(average.weights)[:, None]
    if average.logits:
        return (logits.unflatten(0, (-1, len(weights))) * weights).sum(dim=1)
    single = logits.log_softmax(dim=1).unflatten(0, (-1, len(weights)))
    return (single + weights.log()).logsumexp(dim=1)
