"""A first convolution that whitens: its filters are found from images, not learned."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fovea.errors import FoveaError

IMAGES = 5000
"""How many training images the filters are found from."""

EPS = 5e-4
"""Added to the eigenvalues: what varies less than that is not blown up."""


@torch.no_grad()
def whiten(conv: nn.Conv2d, batches: Iterable[Tensor]) -> None:
    """Set the filters of ``conv`` so that its outputs on patches of the images are uncorrelated.

    They are the eigenvectors of the patches' second moments, each over the root of its eigenvalue
    (plus `EPS`), largest first, and then their negatives. All is computed in float64
    on the CPU, so that every rank finds the same.

    Args:
        conv: (2 * C * h * w, C, h, w); its bias stays as it is.
        batches: of images (B, C, H, W) float, normalised.

    Raises:
        FoveaError: there are no images.

    Source: Jordan 2024, arXiv 2404.00498, section 3.2; ``init_whitening_conv`` of
    KellerJordan/cifar10-airbench, ``legacy/airbench94.py``, which computes in float32.
    """
    _, channels, height, width = conv.weight.shape
    size = channels * height * width
    moments, count = torch.zeros(size, size, dtype=torch.float64), 0
    for images in batches:
        patches = nn.functional.unfold(images.cpu(), (height, width))  # (B, size, places)
        rows = patches.transpose(1, 2).reshape(-1, size).double()
        moments += rows.T @ rows
        count += len(rows)
    if count == 0:
        raise FoveaError("Whitening needs training images, and there are none.")
    values, vectors = torch.linalg.eigh(moments / count)  # ascending, in columns
    filters = (vectors / torch.sqrt(values + EPS)).T.flip(0).view(-1, channels, height, width)
    conv.weight.copy_(torch.cat([filters, -filters]))
