"""The ways to read small images in memory that `benchmark_input.py` compares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from input_files import SMALL, Job
from input_peers import FFCV, LEAST_PAGE, ffcv_batches
from input_ways import ONE_IMAGE, Way, torch_batches
from numpy.typing import NDArray
from torch import Tensor
from torchvision.datasets import CIFAR10, VisionDataset

from fovea.data import Augment, CIFARDataModule
from fovea.data.cifar import STATISTICS
from fovea.data.processors import processor_share
from fovea.data.sources import MemorySource
from fovea.data.splits import Found, Split

MEAN, STD = STATISTICS[10]


class SmallWay(Way):
    """A way that reads 32 x 32 pixels in memory."""

    def parts(self, parts: list[str]) -> list[str]:
        """Return the part in memory, if wanted."""
        return [part for part in parts if part == SMALL]


class TorchvisionSmall(SmallWay):
    """The reference: CIFAR-10 as torchvision's data set and loader give it."""

    name = "torchvision"

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield float32 (B, 3, 32, 32), normalised."""
        steps = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()]
        transform = T.Compose([*steps, T.ToTensor(), T.Normalize(MEAN, STD)])
        return torch_batches(GivenCIFAR10(*job.arrays, transform), job)


class GivenCIFAR10(CIFAR10):
    """torchvision's CIFAR-10 with other images than those it downloads."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], transform: T.Compose
    ) -> None:
        VisionDataset.__init__(self, "", transform=transform)
        self.data = images
        self.targets = labels.tolist()


class FoveaSmall(SmallWay):
    """The data module with its images in memory."""

    name = "fovea"
    package = "fovea"
    install = "pip install ."
    differs = "crop, flip, normalisation by batch, one thread, no workers"

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield float32 (B, 3, 32, 32), normalised."""
        settings: dict[str, Any] = {"val_fraction": ONE_IMAGE, "augment": Augment()}
        data = GivenCIFARDataModule(*job.arrays, batch_size=job.batch_size, **settings)
        loader = data.train_dataloader()
        while True:
            for batch in loader:
                yield data.on_after_batch_transfer(batch, 0).images
            data.epoch += 1


class GivenCIFARDataModule(CIFARDataModule):
    """fovea's CIFAR-10 with other images than those it downloads."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], **common: Any) -> None:
        super().__init__("given", **common)
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self._labels = torch.from_numpy(labels)

    def _find(self) -> Found:
        names = [str(label) for label in range(int(self._labels.max()) + 1)]
        split = Split.whole(MemorySource(self._images, "given"), self._labels)
        return Found(class_names=names, splits={"train": split}, undivided=False, layout="given")


class FFCVSmall(SmallWay):
    """FFCV's CIFAR-10 example, less its cutout, and on the CPU to the end."""

    name = "ffcv"
    package = FFCV.package
    install = FFCV.install
    differs = "pixels in a file of its own; threads"
    least_workers = 1

    def pack(self, job: Job) -> None:
        """Write the file."""
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        fields = {"image": RGBImageField(), "label": IntField()}
        writer = DatasetWriter(str(job.packed), fields, LEAST_PAGE, processor_share(1))
        writer.from_indexed_dataset(list(zip(*job.arrays, strict=True)))

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield float32 (B, 3, 32, 32), normalised, channels_last."""
        from ffcv.fields.rgb_image import SimpleRGBImageDecoder
        from ffcv.transforms import (
            NormalizeImage,
            RandomHorizontalFlip,
            RandomTranslate,
            ToTensor,
            ToTorchImage,
        )

        mean, std = (255 * np.array(values) for values in (MEAN, STD))
        steps = [SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(padding=4)]
        steps += [NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()]
        return ffcv_batches(job, steps)
