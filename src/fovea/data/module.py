"""Any data set as Lightning wants it: loaders, and what happens to a batch."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from fovea.data.badimages import BadImageLog
from fovea.data.contract import ImageData
from fovea.data.dataset import ImageDataset, ImageLoader
from fovea.data.sampling import (
    EpochOrder,
    EvalBatchSampler,
    GlobalBatchSampler,
    Position,
    Share,
    stable_seed,
)
from fovea.data.settings import check_batch
from fovea.data.summary import describe_rows, processor_share
from fovea.types import Batch


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

    def train_dataloader(self) -> ImageLoader:
        """Return this rank's micro-batches of the train split, shuffled and augmented."""
        share = self._share()
        self.check_batch(share.world, share.accumulate)
        dataset = self._dataset("train", training=True)
        order = EpochOrder(dataset.labels, self.seed, self.sampling, self.repeats)
        sampler = GlobalBatchSampler(order, self.batch_size, share, self._position)
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> ImageLoader:
        """Return this rank's share of the val split."""
        return self.dataloader("val")

    def test_dataloader(self) -> ImageLoader:
        """Return this rank's share of `test_split`."""
        return self.dataloader(self.test_split)

    def dataloader(self, split: str) -> ImageLoader:
        """Return this rank's share of any split, in order, as evaluation sees it.

        Over all ranks each sample comes exactly once among the entries with ``indices >= 0``. All
        batches have ``eval_batch_size`` entries.
        """
        dataset = self.dataset(split)
        return self._loader(
            dataset, EvalBatchSampler(len(dataset), self.eval_batch_size, self._share())
        )

    def _loader(
        self, dataset: ImageDataset, sampler: GlobalBatchSampler | EvalBatchSampler
    ) -> ImageLoader:
        workers = self.loader_processes()
        return ImageLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def loader_processes(self) -> int:
        """Return the worker processes of each loader of this process."""
        if self.num_workers != "auto":
            return int(self.num_workers)
        return processor_share(self.trainer.num_devices if self.trainer else 1)

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

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Return images (B, C, H, W) float32, normalised, channels_last; in training also mixed.

        Mixup and cutmix are a function of (seed, epoch, micro-batch, rank).
        """
        images = self.preprocessing.normalize(batch.images)
        batch = batch._replace(images=images.contiguous(memory_format=torch.channels_last))
        if self.trainer is None or not self.trainer.training:
            return batch
        return self._mix(batch)

    def _mix(self, batch: Batch) -> Batch:
        mix = self.augment.batch_transform(self.num_classes)
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
