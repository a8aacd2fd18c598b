"""One split as a map-style data set, and the loader that feeds it to the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fovea.data.images import UnreadableImage
from fovea.data.sampling import SampleKey, stable_seed
from fovea.data.sources import ImageSource
from fovea.errors import FoveaError
from fovea.types import PADDING_INDEX, Batch, unreadable_index

OnBadImage = Literal["error", "skip", "report"]


class ImageDataset(Dataset[Batch]):
    """The samples of one split, transformed for training or for evaluation.

    A sample's pixels are a function of (seed, key) alone: whichever process reads it, in whatever
    order, they are the same.

    Args:
        source: pool of images.
        numbers: (N,) int64, the split's images in ``source``.
        labels: (N,) int64 in [0, K).
        transform: from (C, h, w) uint8 to ``image_shape`` uint8; draws from torch's CPU generator
            and no other.
        image_shape: (C, H, W) of what comes out.
        seed: of the random draws.
        training: decides what stands in for an unreadable image, see `Batch.indices`.
        on_bad_image: ``error`` raises instead.
    """

    def __init__(
        self,
        source: ImageSource,
        numbers: Tensor,
        labels: Tensor,
        transform: Callable[[Tensor], Tensor],
        image_shape: tuple[int, int, int],
        seed: int = 0,
        training: bool = False,
        on_bad_image: OnBadImage = "error",
    ) -> None:
        self.source = source
        self.numbers = numbers
        self.labels = labels
        self.transform = transform
        self.image_shape = image_shape
        self.seed = seed
        self.training = training
        self.on_bad_image = on_bad_image

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Return the file of sample ``index``, or a name such as ``digits/12``."""
        return self.source.path(int(self.numbers[index]))

    def __getitem__(self, key: SampleKey | int) -> Batch:
        """Return one sample: image (C, H, W) uint8, label () and index () int64.

        Raises:
            UnreadableImage: with ``on_bad_image=error``, naming the file.
        """
        if not isinstance(key, SampleKey):
            key = SampleKey(int(key))
        if not key.valid:
            return self._sample(self._blank(), label=0, index=PADDING_INDEX)
        try:
            return self._read(key, key.index, recorded=key.index)
        except UnreadableImage:
            if self.on_bad_image == "error":
                raise
        recorded = unreadable_index(key.index)
        if not self.training:
            return self._sample(self._blank(), int(self.labels[key.index]), recorded)
        return self._substitute(key, recorded)

    def __getitems__(self, keys: list[SampleKey]) -> list[Batch] | FoveaError:
        """Return the samples of one batch, or the error that one of them raised.

        Returned, because torch would put a traceback into the message of what a worker raises.
        """
        try:
            return [self[key] for key in keys]
        except FoveaError as error:
            return error

    def _substitute(self, key: SampleKey, recorded: int) -> Batch:
        """Return the next readable sample, under its own label."""
        for step in range(1, len(self)):
            try:
                return self._read(key, (key.index + step) % len(self), recorded)
            except UnreadableImage:
                continue
        raise FoveaError(
            f"Not one of the {len(self)} training images can be read (the first: {self.path(0)}). "
            "List what is wrong by data.check=true."
        )

    def _read(self, key: SampleKey, index: int, recorded: int) -> Batch:
        image = self.source.read(int(self.numbers[index]), self.image_shape[0])
        state = torch.get_rng_state()
        try:
            # Only the CPU generator: torch.manual_seed would also reset the GPU's.
            torch.default_generator.manual_seed(
                stable_seed("sample", self.seed, key.epoch, key.index, key.copy)
            )
            image = self.transform(image)
        finally:
            torch.set_rng_state(state)
        return self._sample(image, int(self.labels[index]), recorded)

    def _blank(self) -> Tensor:
        return torch.zeros(self.image_shape, dtype=torch.uint8)

    @staticmethod
    def _sample(image: Tensor, label: int, index: int) -> Batch:
        return Batch(image, torch.tensor(label), torch.tensor(index))


def collate(samples: list[Batch] | FoveaError) -> Batch | FoveaError:
    """Return samples stacked: images (B, C, H, W) uint8, labels (B,) and indices (B,) int64."""
    if isinstance(samples, FoveaError):
        return samples
    return Batch(*default_collate([tuple(sample[:3]) for sample in samples]))


class ImageLoader(DataLoader[Batch]):
    """A loader whose iterators start at their first batch, not when they are made.

    Lightning makes the iterator of a resumed epoch before it has settled which epoch and batch the
    run is at; asked at the first batch, the sampler reads the final numbers.
    """

    def __init__(self, dataset: ImageDataset, **options: Any) -> None:
        # An own generator, because a loader draws its workers' base seed from torch's global one
        # otherwise, and so moves the dropout of the run it feeds.
        super().__init__(
            dataset, collate_fn=collate, generator=torch.Generator().manual_seed(0), **options
        )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the trainer's own count of batches says where to go on.

        That the method exists tells Lightning that a resume inside an epoch is exact.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, FoveaError):
                self._stop_workers()
                raise batch
            yield batch

    def _stop_workers(self) -> None:
        # An iterator that goes with an exception is collected in a cycle, its queues first: it
        # then waits five seconds for each worker, which it can no longer tell to stop.
        if isinstance(self._iterator, _MultiProcessingDataLoaderIter):
            self._iterator._shutdown_workers()
            self._iterator = None
