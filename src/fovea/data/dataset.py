"""One split as a map-style data set, and the loader that feeds it to the trainer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fovea.data.decoding import Decode
from fovea.data.draws import sample_seeds
from fovea.data.images import UnreadableImage
from fovea.data.journal import Journal, Row
from fovea.data.sampling import BatchSampler, SampleKey
from fovea.data.shared_memory import explain_dead_worker
from fovea.data.slots import BatchSlots, FilledSlot, make_slots
from fovea.data.sources import ImageSource
from fovea.data.undecoded import UndecodedImages, undecoded
from fovea.data.views import PartView, View
from fovea.errors import FoveaError
from fovea.types import PADDING_INDEX, Batch, unreadable_index

OnBadImage = Literal["error", "skip", "report"]


class ImageDataset(Dataset[Batch]):
    """The samples of one split, as the network sees them in training or in evaluation.

    A sample's pixels are a function of (seed, key) alone: whichever process reads it, in whatever
    order, they are the same.

    Args:
        source: pool of images.
        numbers: (N,) int64, the split's images in ``source``.
        labels: (N,) int64 in [0, K).
        view: from a picture and a seed to ``image_shape`` uint8.
        image_shape: (C, H, W) of what comes out.
        seed: of the random draws.
        training: adds `Batch.seeds`, and decides what stands in for an unreadable image, see
            `Batch.indices`.
        on_bad_image: ``error`` raises instead.
        decode: see `fovea.data.decoding.open_picture`.

    Attributes:
        journal: of the loader that reads it.
        slots: where the loader's workers put their batches.
    """

    def __init__(
        self,
        source: ImageSource,
        numbers: Tensor,
        labels: Tensor,
        view: View,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        training: bool = False,
        on_bad_image: OnBadImage = "error",
        decode: Decode = "auto",
    ) -> None:
        self.source = source
        self.numbers = numbers
        self.labels = labels
        self.view = view
        self.image_shape = image_shape
        self.seed = seed
        self.training = training
        self.on_bad_image = on_bad_image
        self.decode = decode
        self.journal = Journal(0)
        self.slots: BatchSlots | None = None

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
        batch = self.batch([key if isinstance(key, SampleKey) else SampleKey(int(key))])
        images, seeds = batch.images, batch.seeds
        if isinstance(images, UndecodedImages):
            images = images.decode(torch.device("cpu"))
        seed = None if seeds is None else seeds[0]
        return Batch(images[0], batch.labels[0], batch.indices[0], seeds=seed)

    def __getitems__(self, keys: list[SampleKey]) -> Batch | FoveaError:
        """Return the samples of one batch, or the error that one of them raised.

        Returned, because torch would put a traceback into the message of what a worker raises.
        """
        try:
            return self.batch(keys)
        except FoveaError as error:
            return error

    def batch(self, keys: list[SampleKey]) -> Batch:
        """Return samples: images (B, C, H, W) uint8, channels_last; the rest (B,) int64.

        Raises:
            UnreadableImage: with ``on_bad_image=error``, naming the file.
        """
        seeds, row = self._seeds(keys), self.journal.row()
        samples = [self._sample(*one, row) for one in zip(keys, seeds.tolist(), strict=True)]
        images, shown, indices = zip(*samples, strict=True)
        recorded = torch.tensor(indices)
        labels = self.labels[torch.tensor(shown)]
        labels[recorded == PADDING_INDEX] = 0
        return Batch(
            self._together(list(images)),
            labels,
            recorded,
            seeds=seeds if self.training else None,
        )

    def _together(self, images: list[Any]) -> Any:
        if self.decode == "gpu":
            assert isinstance(self.view, PartView)
            return UndecodedImages(images, self.view)
        worker = get_worker_info()
        if worker is not None and self.slots is not None:
            slot = self.slots.take(worker.id)
            if slot is not None:
                return self.slots.fill(slot, images)
        return stack_pixels(images)

    def _seeds(self, keys: list[SampleKey]) -> Tensor:
        indices, copies = torch.tensor([(key.index, key.copy) for key in keys]).unbind(1)
        return sample_seeds(self.seed, keys[0].epoch, indices, copies)

    def _sample(self, key: SampleKey, seed: int, row: Row) -> tuple[Any, int, int]:
        """Return the image (C, H, W), or a part to decode, of one sample.

        Then whose label it has, and the index to record.
        """
        if not key.valid:
            return self._blank(), 0, PADDING_INDEX
        try:
            return self._read(key.index, seed, row), key.index, key.index
        except UnreadableImage:
            if self.on_bad_image == "error":
                raise
        recorded = unreadable_index(key.index)
        if not self.training:
            return self._blank(), key.index, recorded
        return *self._substitute(key.index, seed, row), recorded

    def _substitute(self, index: int, seed: int, row: Row) -> tuple[Any, int]:
        """Return the next readable sample and its index."""
        for step in range(1, len(self)):
            other = (index + step) % len(self)
            try:
                return self._read(other, seed, row), other
            except UnreadableImage:
                continue
        raise FoveaError(
            f"Not one of the {len(self)} training images can be read (the first: {self.path(0)}). "
            "List what is wrong by data.check=true."
        )

    def _read(self, index: int, seed: int, row: Row) -> Any:
        row.begin(index)
        picture = self.source.open(int(self.numbers[index]), self.image_shape[0], self.decode)
        if self.decode == "gpu":
            assert isinstance(self.view, PartView)
            image: Any = undecoded(picture, self.view, seed)
        else:
            image = self.view(picture, seed)
        row.end(picture.fast)
        return image

    def _blank(self) -> Tensor:
        return torch.zeros(self.image_shape, dtype=torch.uint8)


def stack_pixels(images: list[Tensor]) -> Tensor:
    """Return (C, H, W) images as one channels_last batch (B, C, H, W).

    Decoders and the resize leave the channels of a pixel side by side: stacked so, an image is
    copied in one piece. In a worker it goes straight into shared memory.
    """
    batch: Tensor = default_collate([image.permute(1, 2, 0) for image in images])
    return batch.permute(0, 3, 1, 2)


def leave_inherited_objects_alone(_worker: int) -> None:
    """Keep a worker's garbage collector from the objects of the process it was forked from.

    It would write to each of them, and so copy some hundred megabytes that are shared until then.
    """
    gc.freeze()


def whole_batch(batch: Batch | FoveaError) -> Batch | FoveaError:
    """Return ``batch``, which the data set made whole; in a worker all of it in shared memory.

    The images are there already. The small tensors would be put there by the thread that sends
    them, and it loses the batch where no room is left: here that is an error.
    """
    if isinstance(batch, Batch) and get_worker_info() is not None:
        for part in (batch.labels, batch.indices, batch.seeds):
            if part is not None:
                part.share_memory_()
    return batch


class ImageLoader(DataLoader[Batch]):
    """A loader whose iterators start at their first batch, not when they are made.

    Lightning makes the iterator of a resumed epoch before it has settled which epoch and batch the
    run is at; asked at the first batch, the sampler reads the final numbers.
    """

    def __init__(
        self, dataset: ImageDataset, sampler: BatchSampler, num_workers: int = 0, **options: Any
    ) -> None:
        channels, height, width = dataset.image_shape
        shape = (sampler.local_batch_size, height, width, channels)
        dataset.journal = Journal(num_workers)
        dataset.slots = None if dataset.decode == "gpu" else make_slots(num_workers, shape)
        self.images = dataset
        # An own generator, because a loader draws its workers' base seed from torch's global one
        # otherwise, and so moves the dropout of the run it feeds.
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            worker_init_fn=leave_inherited_objects_alone,
            collate_fn=whole_batch,  # type: ignore[arg-type]  # see __getitems__
            generator=torch.Generator().manual_seed(0),
            **options,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the trainer's own count of batches says where to go on.

        That the method exists tells Lightning that a resume inside an epoch is exact.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            for batch in super().__iter__():
                if isinstance(batch, FoveaError):
                    self._stop_workers()
                    raise batch
                if isinstance(batch.images, FilledSlot):
                    batch = batch._replace(images=batch.images.images())
                yield batch
        except FoveaError:
            raise
        except Exception as error:
            explained = self.explain(error)
            if explained is None:
                raise
            self._stop_workers()
            raise explained from error

    def explain(self, error: Exception) -> FoveaError | None:
        """Return which worker's death ``error`` comes from, and at which images; None if none."""
        paths = [self.images.path(index) for index in self.images.journal.reading()]
        return explain_dead_worker(error, paths, getattr(self._iterator, "_workers", ()))

    def _stop_workers(self) -> None:
        # An iterator that goes with an exception is collected in a cycle, its queues first: it
        # then waits five seconds for each worker, which it can no longer tell to stop.
        if isinstance(self._iterator, _MultiProcessingDataLoaderIter):
            self._iterator._shutdown_workers()
            self._iterator = None
