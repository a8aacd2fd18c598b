"""The mean of what several views or several networks say: of probabilities, never of logits."""

from __future__ import annotations

import math

from torch import Tensor


def average_views(logits: Tensor, views: int) -> Tensor:
    """Return (B, K) float32 logarithms of the mean probabilities over the views of each image.

    Their softmax is that mean. Source: Krizhevsky et al. 2012, "ImageNet Classification with Deep
    Convolutional Neural Networks", section 4.1, averages the softmax of ten crops so.

    Args:
        logits: (B * V, K) floating point, the views of an image in turn.
        views: V.
    """
    single = logits.float().log_softmax(dim=1).unflatten(0, (-1, views))
    return single.logsumexp(dim=1) - math.log(views)
