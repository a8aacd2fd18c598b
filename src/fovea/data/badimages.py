"""Unreadable images met on the way, noted in the main process from the indices of batches."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fovea.data.dataset import OnBadImage
from fovea.data.images import UnreadableImage
from fovea.data.splits import Split
from fovea.data.views import whole_view
from fovea.types import unreadable_index

logger = logging.getLogger(__name__)


class BadImageLog:
    """Paths of unreadable images and why, each once.

    Args:
        on_bad_image: ``report`` also warns through ``logging`` when a file is first met.
    """

    def __init__(self, on_bad_image: OnBadImage) -> None:
        self.on_bad_image = on_bad_image
        self.reasons: dict[str, str] = {}

    def note(self, split: Split, indices: Tensor) -> None:
        """Note the unreadable entries of a batch.

        Args:
            split: the batch's.
            indices: (B,) int64 on the CPU, as in `Batch`.
        """
        for encoded in indices[indices <= unreadable_index(0)].tolist():
            number = int(split.numbers[unreadable_index(encoded)])
            path = split.source.path(number)
            if path in self.reasons:
                continue
            self.reasons[path] = _reason(split, number)
            if self.on_bad_image == "report":
                logger.warning("cannot read image %s: %s", path, self.reasons[path])

    def gather(self) -> None:
        """Merge what all ranks noted. Every rank must call it, or none."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        everyone: list[dict[str, str]] = [{}] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyone, self.reasons)
        for reasons in everyone:
            self.reasons.update(reasons)


def _reason(split: Split, number: int) -> str:
    # Batches carry indices only, so the reason is found by reading once more: this is rare.
    try:
        whole_view(split.source.open(number, 3, "pil"))
    except UnreadableImage as error:
        return error.reason
    return "could not be read once, but can be now"
