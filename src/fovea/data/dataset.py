"""One split as a map-style data set, and the loader that feeds it to the trainer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
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
from fovea.data.worker_signals import held_back, obey_parent_only
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
        channels: of an image. None: C; less where several views of it stand behind each other.
        growth: view and ``image_shape`` by epoch, where they change between epochs; the arguments
            are then those of the largest images.

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
        channels: int | None = None,
        growth: Callable[[int], tuple[View, tuple[int, int, int]]] | None = None,
    ) -> None:
        self.source = source
        self.numbers = numbers
        self.labels = labels
        self.view = view
        self.image_shape = image_shape
        self.channels = channels or image_shape[0]
        self.seed = seed
        self.training = training
        self.on_bad_image = on_bad_image
        self.decode = decode
        self.growth = growth
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
        self._enter(keys[0].epoch)
        seeds = self._seeds(keys)
        images, places = self._memory(len(keys))
        parts, shown, indices = self._samples(keys, seeds, places)
        recorded = torch.tensor(indices)
        labels = self.labels[torch.tensor(shown)]
        labels[recorded == PADDING_INDEX] = 0
        if self.decode == "gpu":
            assert isinstance(self.view, PartView)
            images = UndecodedImages(parts, self.view)
        return Batch(images, labels, recorded, seeds=seeds if self.training else None)

    def _enter(self, epoch: int) -> None:
        """Take up the view of ``epoch``."""
        if self.growth is not None:
            self.view, self.image_shape = self.growth(epoch)

    def remake(self, indices: Tensor, seeds: Tensor, epoch: int = 0) -> Tensor:
        """Return the images (B, C, H, W) uint8 of a batch that training had, once more.

        Args:
            indices: (B,) int64, as in `Batch`.
            seeds: (B,) int64, as in `Batch`.
            epoch: counted from 0.
        """
        self._enter(epoch)
        numbers = [index if index >= 0 else unreadable_index(index) for index in indices.tolist()]
        pixels = empty_batch(len(numbers), self.image_shape)
        self._samples([SampleKey(number) for number in numbers], seeds, pixels.unbind())
        return pixels

    def _memory(self, count: int) -> tuple[Any, Sequence[Tensor | None]]:
        """Return where a batch of images goes, and the place of each, (C, H, W) uint8."""
        if self.decode == "gpu":
            return None, [None] * count
        worker = get_worker_info()
        if worker is not None and self.slots is not None:
            slot = self.slots.take(worker.id)
            if slot is not None:
                pixels = self.slots.pixels(slot, count)
                return FilledSlot(self.slots.key, slot, count), pixels.unbind()
        pixels = empty_batch(count, self.image_shape)
        return pixels, pixels.unbind()

    def _samples(
        self, keys: list[SampleKey], seeds: Tensor, places: Sequence[Tensor | None]
    ) -> tuple[list[Any], list[int], list[int]]:
        """Put each sample into its place, where it has one.

        Returns the images or the parts to decode, whose labels they have, and what to record as
        their indices.
        """
        row = self.journal.row()
        samples = [
            self._sample(key, seed, row, place)
            for key, seed, place in zip(keys, seeds.tolist(), places, strict=True)
        ]
        images, shown, indices = zip(*samples, strict=True)
        return list(images), list(shown), list(indices)

    def _seeds(self, keys: list[SampleKey]) -> Tensor:
        indices, copies = torch.tensor([(key.index, key.copy) for key in keys]).unbind(1)
        return sample_seeds(self.seed, keys[0].epoch, indices, copies)

    def _sample(
        self, key: SampleKey, seed: int, row: Row, place: Tensor | None
    ) -> tuple[Any, int, int]:
        """Return the image (C, H, W), or a part to decode, of one sample.

        Then whose label it has, and the index to record.
        """
        if not key.valid:
            return self._blank(place), 0, PADDING_INDEX
        try:
            return self._read(key.index, seed, row, place), key.index, key.index
        except UnreadableImage:
            if self.on_bad_image == "error":
                raise
        recorded = unreadable_index(key.index)
        if not self.training:
            return self._blank(place), key.index, recorded
        return *self._substitute(key.index, seed, row, place), recorded

    def _substitute(self, index: int, seed: int, row: Row, place: Tensor | None) -> tuple[Any, int]:
        """Return the next readable sample and its index."""
        for step in range(1, len(self)):
            other = (index + step) % len(self)
            try:
                return self._read(other, seed, row, place), other
            except UnreadableImage:
                continue
        raise FoveaError(
            f"Not one of the {len(self)} training images can be read (the first: {self.path(0)}). "
            "List what is wrong by data.check=true."
        )

    def _read(self, index: int, seed: int, row: Row, place: Tensor | None) -> Any:
        row.begin(index)
        number = int(self.numbers.numpy()[index])  # a tenth of the time of a tensor's element
        picture = self.source.open(number, self.channels, self.decode)
        if place is None:
            assert isinstance(self.view, PartView)
            image: Any = undecoded(picture, self.view, seed)
        else:
            image = self.view(picture, seed, place)
            if image is not place:
                place.copy_(image)
        row.end(picture.fast)
        return image

    def _blank(self, place: Tensor | None) -> Tensor:
        if place is None:
            return torch.zeros(self.image_shape, dtype=torch.uint8)
        return place.zero_()


def empty_batch(count: int, image_shape: tuple[int, int, int]) -> Tensor:
    """Return memory for a batch (B, C, H, W) uint8, channels_last."""
    channels, height, width = image_shape
    pixels = torch.empty(count, height, width, channels, dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


def begin_worker(_worker: int) -> None:
    """Leave requests to stop, and inherited objects, to the process a worker was forked from.

    The garbage collector would write to each of the objects, and so copy some hundred megabytes
    that are shared until then.
    """
    obey_parent_only()
    gc.freeze()


def to_send(batch: Batch | FoveaError) -> Batch | FoveaError:
    """Return ``batch``, which the data set made whole; in a worker as it is sent best.

    Images go through shared memory, and are put there here: the thread that sends them would lose
    the batch where no room is left. The numbers go by value, as NumPy arrays, since each tensor
    would be a file that is opened, sent and mapped.
    """
    if not isinstance(batch, Batch) or get_worker_info() is None:
        return batch
    if isinstance(batch.images, Tensor):
        batch.images.share_memory_()
    return _numbers(batch, Tensor.numpy)


def _numbers(batch: Batch, convert: Callable[[Any], Any]) -> Batch:
    """Return ``batch`` with its labels, indices and seeds converted."""
    names = ("labels", "indices", "seeds")
    return batch._replace(
        **{n: convert(getattr(batch, n)) for n in names if getattr(batch, n) is not None}
    )


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
        # Places are of one shape.
        changing = dataset.decode == "gpu" or dataset.growth is not None
        dataset.slots = None if changing else make_slots(num_workers, shape)
        self.images = dataset
        # An own generator, because a loader draws its workers' base seed from torch's global one
        # otherwise, and so moves the dropout of the run it feeds.
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            worker_init_fn=begin_worker,
            collate_fn=to_send,  # type: ignore[arg-type]  # see __getitems__
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
            with held_back():
                batches = super().__iter__()
            for batch in batches:
                if isinstance(batch, FoveaError):
                    self._stop_workers()
                    raise batch
                yield self._received(batch)
        except FoveaError:
            raise
        except Exception as error:
            explained = self.explain(error)
            if explained is None:
                raise
            self._stop_workers()
            raise explained from error

    def _received(self, batch: Batch) -> Batch:
        if self.num_workers == 0:
            return batch
        batch = _numbers(batch, torch.from_numpy)
        if isinstance(batch.images, FilledSlot):
            batch = batch._replace(images=batch.images.images())
        return _numbers(batch, Tensor.pin_memory) if self.pin_memory else batch

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
