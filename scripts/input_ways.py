"""The ways to read images that `benchmark_input.py` compares: fovea's, torchvision's, timm's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as T
from input_files import ORIGINAL, QUALITY, SMALL, Job
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder, VisionDataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from fovea.data import Augment, FolderDataModule, ImageDataModule, ShardsDataModule
from fovea.errors import FoveaError
from fovea.types import IMAGENET_MEAN, IMAGENET_STD

SIZE, RESIZE = 224, 256

ONE_IMAGE = 1e-9
"""As a fraction that is cut from train: the least that can be cut."""


class Way(ABC):
    """One way to make batches of files.

    Attributes:
        name: what ``--peers`` calls it.
        package: that it imports, and `install` installs.
        install: command.
        differs: from the reference in what comes out and how; "" for nothing.
        stored: whether it also reads images that were shrunk and stored.
        least_workers: 1 where the work is always done by other threads.
    """

    name: str
    package = "torchvision"
    install = "pip install torchvision"
    differs = ""
    stored = False
    least_workers = 0

    def parts(self, parts: list[str]) -> list[str]:
        """Return those of ``parts`` that this way takes part in."""
        return [part for part in parts if part == ORIGINAL or (self.stored and part != SMALL)]

    def installed(self) -> bool:
        """Return whether the package is there."""
        try:
            return importlib.util.find_spec(self.package) is not None
        except ModuleNotFoundError:  # of the package above it
            return False

    def pack(self, job: Job) -> None:  # noqa: B027  # most read the files as they are
        """Write `Job.packed`, where the way reads files of its own."""

    @abstractmethod
    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield images (B, C, H, W), or (B, H, W, C), epoch after epoch."""


def pillow_transform(training: bool) -> T.Compose:
    """Return what torchvision's reference recipe does to a PIL image, normalised float32."""
    steps: list[Any] = (
        [T.RandomResizedCrop(SIZE), T.RandomHorizontalFlip()]
        if training
        else [T.Resize(RESIZE), T.CenterCrop(SIZE)]
    )
    return T.Compose([*steps, T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])


def tensor_transform(training: bool) -> v2.Compose:
    """Return the same of a uint8 tensor, which it stays."""
    steps: list[Any] = (
        [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]
        if training
        else [v2.Resize(RESIZE, antialias=True), v2.CenterCrop(SIZE)]
    )
    return v2.Compose([v2.RGB(), *steps])


def repeat(loader: Any) -> Iterator[Tensor]:
    """Yield the images of each (images, labels) that ``loader`` gives, epoch after epoch."""
    while True:
        for images, _ in loader:
            yield images


def torch_batches(dataset: VisionDataset, job: Job) -> Iterator[Tensor]:
    """Yield what PyTorch's own loader gives."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        job.batch_size,
        shuffle=job.training,
        drop_last=job.training,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
    )
    return repeat(loader)


class Torchvision(Way):
    """The reference: PIL, one image at a time."""

    name = "torchvision"
    stored = True

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield float32 (B, 3, 224, 224), normalised."""
        transform = pillow_transform(job.training)
        return torch_batches(ImageFolder(str(job.images / "train"), transform), job)


class TorchvisionTensors(Way):
    """What torchvision documents as its fastest: tensors from the decoder on."""

    name = "torchvision-v2"
    differs = "torchvision.io decodes, v2 transforms of uint8 tensors; the device normalises"

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield uint8 (B, 3, 224, 224)."""
        transform = tensor_transform(job.training)
        folder = str(job.images / "train")
        return torch_batches(ImageFolder(folder, transform, loader=read_tensor), job)


def read_tensor(path: str) -> Tensor:
    """Return a file's image (3, h, w) uint8, turned as its EXIF says."""
    return decode_image(path, ImageReadMode.RGB, apply_exif_orientation=True)


class Timm(Way):
    """``create_loader`` with its prefetcher, less what that does on the GPU."""

    name = "timm"
    package = "timm"
    install = "pip install timm"
    differs = "PIL crops and resizes, uint8 to the device, which normalises; no colour jitter"

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield uint8 (B, 3, 224, 224)."""
        import timm.data

        loader = timm.data.create_loader(
            timm.data.ImageDataset(str(job.images / "train")),
            SIZE,
            job.batch_size,
            is_training=job.training,
            color_jitter=0.0,
            interpolation="bilinear",
            crop_pct=SIZE / RESIZE,
            num_workers=job.workers,
            device=torch.device("cpu"),
        )
        return repeat(loader.loader)


class Fovea(Way):
    """The data module, as a run on a GPU takes its batches."""

    name = "fovea"
    package = "fovea"
    install = "pip install ."
    differs = "uint8 to the device, which flips and normalises"
    on_cpu = False
    decode: Any = "auto"

    def module(self, job: Job) -> ImageDataModule:
        """Return the data module."""
        return FolderDataModule(str(job.images), **self.settings(job))

    def settings(self, job: Job) -> dict[str, Any]:
        """Return what all data modules take."""
        return {
            "batch_size": job.batch_size,
            "num_workers": job.workers,
            "decode": self.decode,
            "image_size": SIZE,
            "val_fraction": ONE_IMAGE,
            "augment": Augment(),
        }

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield uint8 (B, 3, 224, 224), channels_last; normalised float32 if ``on_cpu``."""
        data = self.module(job)
        loader = data.train_dataloader() if job.training else data.dataloader("train")
        while True:
            for batch in loader:
                seen = data.on_after_batch_transfer(batch, 0) if self.on_cpu else batch
                yield seen.images[: int((batch.indices >= 0).sum())]
            data.epoch += 1


class FoveaSimplejpeg(Fovea):
    """Where there is no nvImageCodec."""

    name = "fovea-simplejpeg"
    differs = "the same without nvImageCodec, as on macOS: whole images are decoded"
    decode = "simplejpeg"


class FoveaFloat(Fovea):
    """With all that the device would do."""

    name = "fovea-float"
    differs = "the same, flipped and normalised by batch in the main process"
    on_cpu = True


class FoveaShards(Fovea):
    """The data module of shards, where images are stored smaller."""

    differs = "shards of prepare_shards.py; uint8 to the device, which flips and normalises"
    stored = True

    def parts(self, parts: list[str]) -> list[str]:
        """Return those that are stored."""
        return [part for part in parts if part.isdecimal()]

    def pack(self, job: Job) -> None:
        """Write the shards as a user would."""
        words = ["data=folder", f"data.root={job.originals}", f"data.val_fraction={ONE_IMAGE}"]
        words += [f"out={job.packed}", f"max_size={job.max_size}", f"quality={QUALITY}"]
        script = Path(__file__).with_name("prepare_shards.py")
        done = subprocess.run([sys.executable, str(script), *words], stderr=subprocess.PIPE)
        if done.returncode:
            raise FoveaError(done.stderr.decode().strip().splitlines()[-1])

    def module(self, job: Job) -> ImageDataModule:
        """Return the data module."""
        return ShardsDataModule(str(job.packed), **self.settings(job))
