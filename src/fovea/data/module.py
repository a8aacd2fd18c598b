"""Any data set as Lightning wants it: loaders, and what happens to a batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet, finalize

import lightning
import torch
from torch import Tensor

from fovea.data.badimages import BadImageLog
from fovea.data.batch_augment import alternating_flip
from fovea.data.contract import ImageData
from fovea.data.dataset import ImageDataset, ImageLoader
from fovea.data.draws import sample_seeds
from fovea.data.journal import Journal
from fovea.data.processors import advice, processor_share, rank_processors
from fovea.data.resident import (
    HeldSource,
    ResidentLoader,
    at_hand,
    device_with_room,
    free_memory,
    hold,
    several_epochs,
)
from fovea.data.sampling import (
    BatchSampler,
    EpochOrder,
    EvalBatchSampler,
    GlobalBatchSampler,
    Position,
    SampleKey,
    Share,
    stable_seed,
)
from fovea.data.settings import check_batch
from fovea.data.several_views import SeveralViews, split_views
from fovea.data.shared_memory import check_shared_memory, has_shared_memory
from fovea.data.summary import describe_rows
from fovea.data.undecoded import UndecodedImages, check_gpu_decoding
from fovea.errors import FoveaError
from fovea.types import Batch

logger = logging.getLogger(__name__)

Loader = ImageLoader | ResidentLoader


class ImageDataModule(ImageData, lightning.LightningDataModule):
    """Images of K classes as Lightning wants them: loaders, and what happens to a batch.

    Args:
        common: see `ImageData`.

    Attributes:
        epoch: that `train_dataloader` gives where no trainer counts epochs.
        test_split: the split that `test_dataloader` gives, "test" unless set to another.
    """

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.epoch = 0
        self.test_split = "test"
        self._bad_images = BadImageLog(self.on_bad_image)
        self._held: dict[str, HeldSource] = {}
        self._counted = [0, 0]
        # Weakly: the workers of a loader end with it, and the memory they share.
        self._loaders: WeakSet[ImageLoader] = WeakSet()

    # Loading.

    def setup(self, stage: str | None = None) -> None:
        """Settle the splits in this process."""
        self.prepare()

    def prepare_data(self) -> None:
        """Download once a node, before the ranks set up."""
        self.prepare()

    def check_batch(self, world: int = 1, accumulate: int = 1) -> None:
        """Raise unless the global batch can be shared out and train holds at least one.

        Args:
            world: number of devices over all nodes.
            accumulate: micro-batches of an optimiser step.

        Raises:
            FoveaError: naming the nearest sizes that fit.
        """
        check_batch(self.batch_size, world, accumulate, len(self._split("train")))

    def per_device_batch(self, world: int = 1, accumulate: int = 1) -> int:
        """Return the size of one device's micro-batch."""
        self.check_batch(world, accumulate)
        return self.batch_size // (world * accumulate)

    def train_dataloader(self) -> Loader:
        """Return this rank's micro-batches of the train split, shuffled and augmented."""
        share = self._share()
        self.check_batch(share.world, share.accumulate)
        dataset = self._dataset("train", training=True)
        order = self._epoch_order(dataset.labels)
        sampler = GlobalBatchSampler(order, self.batch_size, share, self._position)
        return self._loader("train", dataset, sampler)

    def _epoch_order(self, labels: Tensor) -> EpochOrder:
        """Return the order in which training visits samples of these labels."""
        return EpochOrder(labels, self.seed, self.sampling, self.repeats)

    def val_dataloader(self) -> Loader:
        """Return this rank's share of the val split."""
        return self.dataloader("val")

    def test_dataloader(self) -> Loader:
        """Return this rank's share of `test_split`."""
        return self.dataloader(self.test_split)

    def dataloader(self, split: str) -> Loader:
        """Return this rank's share of any split, in order, as evaluation sees it.

        Over all ranks each sample comes exactly once among the entries with ``indices >= 0``. All
        batches have ``eval_batch_size`` entries, divided by the number of ``views``.
        """
        dataset = self._dataset(split, training=False, views=self.views)
        size = max(1, self.eval_batch_size // self.views.count)
        sampler = EvalBatchSampler(len(dataset), size, self._share())
        return self._loader(split, dataset, sampler)

    def sample(self, split: str, count: int, batch_size: int = 100) -> Iterator[Tensor]:
        """Yield images from all over a split as the network evaluates them, by batches.

        They are spread evenly over the split, however that is sorted, so that all processes and all
        seeds get the same ones. Files that can't be read are left out with ``on_bad_image=skip``.

        Args:
            split: "train", "val" or "test".
            count: images altogether; the whole split if that has fewer.
            batch_size: images of each batch but the last.

        Yields:
            (B, C, H, W) float32, normalised.
        """
        dataset = self.dataset(split)
        if dataset.decode == "gpu":
            dataset.decode = "auto"
        count = min(count, len(dataset))
        places = [number * len(dataset) // count for number in range(count)]
        for first in range(0, count, batch_size):
            batch = dataset.batch([SampleKey(i) for i in places[first : first + batch_size]])
            yield self.preprocessing.normalize(batch.images[batch.indices >= 0])

    def _loader(self, name: str, dataset: ImageDataset, sampler: BatchSampler) -> Loader:
        if self._is_to_be_held(name, dataset):
            held = self._held[name] = self._held.get(name) or self._hold(name)
            dataset = self._dataset(name, dataset.training, held)
            per_image = self.augment.per_image if dataset.training else self.corruption is not None
            if not per_image:
                device = device_with_room(self._device(), held.images.nbytes, self.memory_fraction)
                return ResidentLoader(dataset, sampler, device)
        return self._worker_loader(dataset, sampler)

    def _worker_loader(
        self, dataset: ImageDataset, sampler: BatchSampler, once: bool = False
    ) -> ImageLoader:
        """Return the loader of batches; one that is gone through ``once`` then ends its workers."""
        if dataset.decode == "gpu":
            check_gpu_decoding(dataset.view, self._device())
        workers = self.loader_processes()
        loader = ImageLoader(
            dataset,
            sampler,
            num_workers=workers,
            persistent_workers=workers > 0 and not once,
            pin_memory=torch.cuda.is_available(),
        )
        if dataset.slots is None:
            batch_bytes = sampler.local_batch_size * math.prod(dataset.image_shape)
            check_shared_memory(batch_bytes, workers, local_ranks=self._ranks())
        self._loaders.add(loader)
        finalize(loader, _count, dataset.journal, self._counted).atexit = False
        return loader

    # Splits in memory.

    def _is_to_be_held(self, name: str, dataset: ImageDataset) -> bool:
        size = self.image_shape[-1]
        if isinstance(dataset.view, SeveralViews):  # held is the centre alone
            return False
        if dataset.training and self.augment.resolved_crop(size) == "resized":
            return False
        if name in self._held or at_hand(dataset) or self.in_memory is True:
            return self.in_memory is not False
        if self.in_memory is False or not several_epochs(self.trainer):
            return False
        need = len(dataset) * math.prod(self.image_shape)
        taken = sum(held.images.nbytes for held in self._held.values())
        return need + taken <= self.memory_fraction * (free_memory() + taken) / self._ranks()

    def _hold(self, name: str) -> HeldSource:
        with self.corrupting(None):  # corrupted anew each time
            seen = self.dataset(name)
        if at_hand(seen):
            return hold(seen)
        if seen.decode == "gpu":  # held as pixels, in the memory of the machine first
            seen.decode = "auto"
        logger.info("reading %d images into memory", len(seen))
        sampler = EvalBatchSampler(len(seen), self.eval_batch_size)
        return hold(seen, self._worker_loader(seen, sampler, once=True))

    def _device(self) -> torch.device:
        """Return where this rank trains."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    # How it is going.

    @contextmanager
    def explaining_dead_workers(self) -> Iterator[None]:
        """Raise what a worker's death brings about as a `FoveaError` with the images at hand.

        Torch raises it in the middle of anything: not only where a batch is asked for.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, FoveaError):
                raise
            for loader in self._loaders:
                if (explained := loader.explain(error)) is not None:
                    raise explained from error
            raise

    def decoded(self) -> tuple[int, int]:
        """Return how many images this rank read from files, and how many of them by Pillow.

        The second counts those that the fast decoders do not take: none with ``decode=pil``.
        """
        total = list(self._counted)
        for loader in self._loaders:
            _count(loader.images.journal, total)
        return total[0], total[1]

    def data_wait_advice(self) -> str:
        """Return what to set when training waits for its data."""
        workers, processors = self.loader_processes(), rank_processors(self._ranks())
        return advice(workers, processors, self.decode, "train" in self._held)

    def loader_processes(self) -> int:
        """Return the worker processes of each loader of this process."""
        auto = self.num_workers == "auto"
        workers = processor_share(self._ranks()) if auto else int(self.num_workers)
        return workers if workers == 0 or has_shared_memory() else 0

    def _ranks(self) -> int:
        """Return the processes of this machine that train."""
        return self.trainer.num_devices if self.trainer else 1

    def _share(self) -> Share:
        if self.trainer is None:
            return Share()
        return Share(
            self.trainer.world_size, self.trainer.global_rank, self.trainer.accumulate_grad_batches
        )

    def _position(self) -> Position:
        """Return where training is: asked when an epoch's first batch is."""
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return Position(self.epoch)
        # What Lightning has counted in this epoch: above 0 only after a resume inside it.
        used = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        # Overfitting a few batches means the same few in every epoch.
        epoch = 0 if getattr(trainer, "overfit_batches", 0) > 0 else trainer.current_epoch
        return Position(epoch, used)

    # On the way to the device.

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Note unreadable images while the indices are still on the CPU."""
        if self.on_bad_image != "error" and self.trainer is not None:
            self._bad_images.note(self._split(self._running_split()), batch.indices)
        return batch

    def _running_split(self) -> str:
        assert self.trainer is not None
        if self.trainer.training:
            return "train"
        return self.test_split if self.trainer.testing else "val"

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Return ``batch`` on ``device``.

        As Lightning does it, but without a search for tensors in what may be of any type.
        """
        if device.type == "cpu":
            return batch
        asynchronous = device.type == "cuda"
        parts: dict[str, Any] = {
            name: part.to(device, non_blocking=asynchronous)
            for name, part in batch._asdict().items()
            if isinstance(part, torch.Tensor)
        }
        return batch._replace(**parts)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Return images (B, C, H, W) float32, normalised, channels_last; of training also changed.

        In evaluation with V ``views`` they are (B * V, C, H, W), those of an image in turn.
        Mixup and cutmix are a function of (seed, epoch, micro-batch, rank).
        """
        if isinstance(batch.images, UndecodedImages):
            batch = batch._replace(images=batch.images.decode(batch.labels.device))
        if batch.seeds is None:
            images = self.preprocessing.normalize(split_views(batch.images, self.views))
            if self.views.count > 1:
                batch = batch._replace(average=self.views.view_average)
        else:
            images = self.augment.on_device(
                batch.images, batch.seeds, self.preprocessing, self.hflip, self._mirrored(batch)
            )
        batch = batch._replace(images=images.contiguous(memory_format=torch.channels_last))
        if self.trainer is None or not self.trainer.training:
            return batch
        return self._mix(batch)

    def _mirrored(self, batch: Batch) -> Tensor | None:
        """Return which images of a training batch are mirrored, where that alternates by epoch."""
        if not self.augment.alternate_flip:
            return None
        always = sample_seeds(self.seed, 0, batch.indices, torch.zeros_like(batch.indices))
        return alternating_flip(always, self.augment.flip, self._position().epoch)

    def _mix(self, batch: Batch) -> Batch:
        mix = self.augment.batch_mix(self.num_classes)
        if mix is None:
            return batch
        epoch, micro_batch = self._position()
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(
                stable_seed("mix", self.seed, epoch, micro_batch, self._share().rank)
            )
            images, targets = mix(batch.images, batch.labels)
        finally:
            torch.set_rng_state(state)
        return batch._replace(images=images, targets=targets)

    # What was wrong, and what there is in words.

    def teardown(self, stage: str) -> None:
        """Merge the unreadable images that the ranks met: all ranks come here, or none."""
        if self.on_bad_image != "error":
            self._bad_images.gather()

    def bad_images(self) -> list[tuple[str, str]]:
        """Return (path, reason) of each unreadable image met so far, sorted by path."""
        return sorted(self._bad_images.reasons.items())

    def describe(self) -> list[tuple[str, str]]:
        """Return (what, value) rows for the summary at the start of a run."""
        return describe_rows(self)


def _count(journal: Journal, total: list[int]) -> None:
    """Add how many images were read, and how many of them by the fallback, to ``total``."""
    for place, number in enumerate(journal.counts()):
        total[place] += number
