"""Other projects' ways to read images, for `benchmark_input.py`: those with files of their own.

Each is set up as its own documentation recommends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from input_files import QUALITY, Job
from input_ways import (
    RESIZE,
    SIZE,
    Way,
    pillow_transform,
    repeat,
    tensor_transform,
)
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from fovea.data.processors import processor_share

LEAST_PAGE = 2**21
"""Bytes of a page of FFCV's file, whose last ones stay half empty: the fewest that it takes."""

SHARD = 64
"""Images in each of WebDataset's shards, few so that each worker has some."""

SHUFFLED = 1000
"""Images that WebDataset mixes at a time."""


class FFCV(Way):
    """FFCV: one file, threads, compiled pipelines."""

    name = "ffcv"
    package = "ffcv"
    install = "apt-get install libopencv-dev libturbojpeg0-dev pkg-config && pip install ffcv"
    differs = (
        f"a file of its own, re-encoded at quality {QUALITY}; threads; resized by OpenCV's area; "
        "evaluation cuts 7/8 of the image, then resizes; flips on the CPU, the device normalises"
    )
    stored = True
    least_workers = 1

    def pack(self, job: Job) -> None:
        """Write the file."""
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        image = RGBImageField(write_mode="jpg", max_resolution=job.max_size, jpeg_quality=QUALITY)
        fields = {"image": image, "label": IntField()}
        writer = DatasetWriter(str(job.packed), fields, LEAST_PAGE, processor_share(1))
        writer.from_indexed_dataset(ImageFolder(str(job.originals / "train")))

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield uint8 (B, 3, 224, 224), channels_last."""
        from ffcv.fields.rgb_image import (
            CenterCropRGBImageDecoder,
            RandomResizedCropRGBImageDecoder,
        )
        from ffcv.transforms import RandomHorizontalFlip, ToTensor, ToTorchImage

        steps = (
            [RandomResizedCropRGBImageDecoder((SIZE, SIZE)), RandomHorizontalFlip()]
            if job.training
            else [CenterCropRGBImageDecoder((SIZE, SIZE), ratio=SIZE / RESIZE)]
        )
        return ffcv_batches(job, [*steps, ToTensor(), ToTorchImage()])


def ffcv_batches(job: Job, steps: list[Any]) -> Iterator[Tensor]:
    """Yield the images that FFCV's loader makes by ``steps``."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Squeeze, ToTensor

    loader = Loader(
        str(job.packed),
        job.batch_size,
        num_workers=job.workers,
        os_cache=True,
        order=OrderOption.RANDOM if job.training else OrderOption.SEQUENTIAL,
        drop_last=job.training,
        pipelines={"image": steps, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )
    return repeat(loader)


class DALI(Way):
    """DALI's pipeline for the CPU: threads, compiled operators."""

    name = "dali"
    package = "nvidia.dali"
    install = "pip install nvidia-dali-cuda130"
    differs = (
        "decodes the blocks of JPEG that the crop needs; threads; channels last; flips on the "
        "CPU, the device normalises"
    )
    least_workers = 1

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield uint8 (B, 224, 224, 3)."""
        from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

        policy = LastBatchPolicy.DROP if job.training else LastBatchPolicy.PARTIAL
        loader = DALIGenericIterator(
            dali_pipeline(job),
            ["images", "labels"],
            reader_name="files",
            auto_reset=True,
            last_batch_policy=policy,
        )
        while True:
            for (batch,) in loader:
                yield batch["images"]


def dali_pipeline(job: Job) -> Any:
    """Return the operators that make a batch."""
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=job.batch_size, num_threads=job.workers, device_id=None, seed=0)
    def pipeline() -> Any:
        folder = str(job.images / "train")
        files, labels = fn.readers.file(
            name="files", file_root=folder, random_shuffle=job.training, pad_last_batch=False
        )
        if job.training:
            shares = {"random_area": [0.08, 1.0], "random_aspect_ratio": [3 / 4, 4 / 3]}
            images = fn.decoders.image_random_crop(files, **shares)
            images = fn.resize(images, size=[SIZE, SIZE], antialias=True)
            images = fn.flip(images, horizontal=fn.random.coin_flip())
        else:
            images = fn.resize(fn.decoders.image(files), resize_shorter=RESIZE, antialias=True)
            images = fn.crop(images, crop=[SIZE, SIZE])
        return images, labels

    return pipeline()


class WebDataset(Way):
    """WebDataset: shards in the tar format, read in sequence."""

    name = "webdataset"
    package = "webdataset"
    install = "pip install webdataset"
    differs = "the same PIL transforms; tar shards, mixed within a buffer"

    def pack(self, job: Job) -> None:
        """Write the shards."""
        import webdataset

        job.packed.mkdir()
        images = ImageFolder(str(job.images / "train"))
        pattern = str(job.packed / "%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=SHARD, verbose=0) as shards:
            for number in np.random.default_rng(0).permutation(len(images)):
                path, label = images.samples[number]
                with open(path, "rb") as file:
                    shards.write({"__key__": f"{number:06}", "jpg": file.read(), "cls": label})

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield float32 (B, 3, 224, 224), normalised."""
        import webdataset

        shards = [str(path) for path in sorted(job.packed.glob("*.tar"))]
        dataset = webdataset.WebDataset(shards, shardshuffle=len(shards) if job.training else False)
        if job.training:
            dataset = dataset.shuffle(SHUFFLED)
        transform = pillow_transform(job.training)
        dataset = dataset.decode("pil").to_tuple("jpg", "cls").map_tuple(transform)
        dataset = dataset.batched(job.batch_size, partial=not job.training).repeat()
        return repeat(webdataset.WebLoader(dataset, batch_size=None, num_workers=job.workers))


class LitData(Way):
    """LitData: chunks of encoded images, streamed."""

    name = "litdata"
    package = "litdata"
    install = "pip install litdata"
    differs = (
        "chunks of its own with the JPEGs as they are; torchvision.io decodes, v2 transforms of "
        "uint8 tensors; the device normalises"
    )

    def pack(self, job: Job) -> None:
        """Write the chunks."""
        import litdata

        litdata.optimize(
            read_for_litdata,
            ImageFolder(str(job.images / "train")).samples,
            str(job.packed),
            chunk_bytes="16MB",
            num_workers=processor_share(1),
        )

    def batches(self, job: Job) -> Iterator[Tensor]:
        """Yield uint8 (B, 3, 224, 224)."""
        import litdata

        dataset = litdata.StreamingDataset(
            str(job.packed), shuffle=job.training, transform=LitDataTransform(job.training)
        )
        loader = litdata.StreamingDataLoader(
            dataset,
            batch_size=job.batch_size,
            num_workers=job.workers,
            drop_last=job.training,
            persistent_workers=job.workers > 0,
        )
        return repeat(loader)


def read_for_litdata(sample: tuple[str, int]) -> tuple[Image.Image, int]:
    """Return a file as LitData stores it: a JPEG that Pillow opened keeps its bytes."""
    path, label = sample
    return Image.open(path), label


class LitDataTransform:
    """From (image, label) to the same with the image cut and resized."""

    def __init__(self, training: bool) -> None:
        self.transform = tensor_transform(training)

    def __call__(self, sample: tuple[Tensor, int]) -> tuple[Tensor, int]:
        """Return (3, 224, 224) uint8, and the label."""
        image, label = sample
        return self.transform(image), label
