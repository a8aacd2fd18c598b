"""Splits held in memory as evaluation sees them, on the device where they fit, and their loader."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Trainer
from torch import Tensor

from fovea.data.dataset import ImageDataset, ImageLoader
from fovea.data.decoding import Decode, Picture, TensorPicture
from fovea.data.draws import sample_seeds
from fovea.data.images import UnreadableImage, to_channels
from fovea.data.sampling import BatchSampler, Keys
from fovea.data.sources import ImageSource, MemorySource
from fovea.errors import FoveaError
from fovea.types import PADDING_INDEX, Batch, unreadable_index

logger = logging.getLogger(__name__)

InMemory = Literal["auto"] | bool


class HeldSource:
    """The images of a split, in its order, as evaluation sees them.

    Args:
        images: (N, H, W, C) uint8; zeros where a file could not be read.
        readable: (N,) bool.
        source: where they came from, for their names.
        numbers: (N,) int64, which images of ``source``.
    """

    def __init__(
        self, images: Tensor, readable: Tensor, source: ImageSource, numbers: Tensor
    ) -> None:
        self.images = images
        self.readable = readable
        self.source = source
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.images)

    def path(self, number: int) -> str:
        """Return what names the image in messages."""
        return self.source.path(int(self.numbers[number]))

    def relative_path(self, number: int) -> str:
        """Return the path in a form that does not change when the folder is moved."""
        return self.source.relative_path(int(self.numbers[number]))

    def open(self, number: int, channels: int, decode: Decode = "auto") -> Picture:
        """Return the image."""
        if not self.readable[number]:
            raise UnreadableImage(self.path(number), "it could not be read")
        return TensorPicture(self.images[number].permute(2, 0, 1))


def hold(dataset: ImageDataset, loader: ImageLoader | None = None) -> HeldSource:
    """Return all samples of ``dataset``, which is one of evaluation, in memory.

    Args:
        dataset: whose images are kept.
        loader: that gives each of its samples once. None: they are in memory already, see
            `at_hand`.

    Raises:
        UnreadableImage: with ``on_bad_image=error``, naming the file.
    """
    channels, height, width = dataset.image_shape
    readable = torch.ones(len(dataset), dtype=torch.bool)
    if loader is None:
        assert isinstance(dataset.source, MemorySource)
        chosen = to_channels(dataset.source.images[dataset.numbers], channels)
        images = chosen.permute(0, 2, 3, 1).contiguous()
    else:
        images = torch.zeros(len(dataset), height, width, channels, dtype=torch.uint8)
        for batch in loader:
            good = batch.indices >= 0
            images[batch.indices[good]] = batch.images.permute(0, 2, 3, 1)[good]
            bad = batch.indices[batch.indices <= unreadable_index(0)]
            readable[unreadable_index(0) - bad] = False
    return HeldSource(images, readable, dataset.source, dataset.numbers)


def at_hand(dataset: ImageDataset) -> bool:
    """Return whether the data set holds its images in memory at the size the network sees."""
    source = dataset.source
    return isinstance(source, MemorySource) and source.images.shape[-2:] == dataset.image_shape[-2:]


def free_memory() -> int:
    """Return the bytes of memory that may still be used, as Linux and its cgroups say.

    0 where that is not known.
    """
    free = 0
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())  # ValueError: "max"
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return min(free, max(0, limit - used))
    except (OSError, KeyError, ValueError):
        return free


def several_epochs(trainer: Trainer | None) -> bool:
    """Return whether a run goes over the whole of its images more than once."""
    if trainer is None or trainer.state.fn != "fit" or trainer.max_epochs == 1:
        return False
    limits = (trainer.limit_train_batches, trainer.limit_val_batches)
    # A whole number counts batches; 1.0 is all of them.
    all_of_it = all(isinstance(limit, float) and limit == 1 for limit in limits)
    return all_of_it and not getattr(trainer, "overfit_batches", 0)


def device_with_room(device: torch.device, need: int, fraction: float) -> torch.device:
    """Return ``device`` if it is a GPU and ``need`` bytes are in ``fraction`` of what it has free.

    Else the CPU.
    """
    if device.type == "cuda" and need <= fraction * torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")


class ResidentLoader:
    """Batches of a split that is held in memory: indexed, not loaded.

    What a batch holds, and in which order, is what `ImageLoader` gives.

    Args:
        dataset: of a `HeldSource`.
        sampler: which samples stand in which batch.
        device: where the images are put; batches come from there.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        sampler: BatchSampler,
        device: torch.device,
    ) -> None:
        source = dataset.source
        assert isinstance(source, HeldSource)
        self.dataset = dataset
        self.batch_sampler = sampler
        self.images = source.images.to(device)
        whole = bool(source.readable.all())
        self._stand_in = _stand_ins(source.readable) if dataset.training and not whole else None
        self._readable = None if whole else source.readable
        self._seeds_of = (-1, torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, self.batch_sampler.batches())

    def state_dict(self) -> dict[str, Any]:
        """Return nothing, see `ImageLoader.state_dict`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""

    def _batch(self, keys: Keys) -> Batch:
        shown = keys.indices if self._stand_in is None else self._stand_in[keys.indices]
        images = self.images.index_select(0, shown.to(self.images.device))
        indices = keys.indices.clone()  # it becomes the batch's own
        if self._readable is not None:
            unreadable = ~self._readable[indices]
            indices[unreadable] = unreadable_index(0) - indices[unreadable]
        labels = self.dataset.labels[shown]
        if keys.valid < len(indices):
            images[keys.valid :] = 0
            labels[keys.valid :] = 0
            indices[keys.valid :] = PADDING_INDEX
        seeds = self._seeds(keys) if self.dataset.training else None
        return Batch(images.permute(0, 3, 1, 2), labels, indices, seeds=seeds)

    def _seeds(self, keys: Keys) -> Tensor:
        """Return the seeds of a batch's samples, found for a whole epoch at once.

        That takes thirty small operations: of each batch, they would be a tenth of a small step.
        """
        if keys.copies.any():
            return sample_seeds(self.dataset.seed, keys.epoch, keys.indices, keys.copies)
        if self._seeds_of[0] != keys.epoch:
            every = torch.arange(len(self.dataset.labels))
            none = torch.zeros_like(every)
            self._seeds_of = keys.epoch, sample_seeds(self.dataset.seed, keys.epoch, every, none)
        return self._seeds_of[1][keys.indices]


def _stand_ins(readable: Tensor) -> Tensor:
    """Return (N,) int64: for each sample itself, or the next one that could be read."""
    good = readable.nonzero()[:, 0]
    if not len(good):
        raise FoveaError(
            "Not one of the training images can be read. List what is wrong by data.check=true."
        )
    following = torch.searchsorted(good, torch.arange(len(readable)))
    return good[following % len(good)]
