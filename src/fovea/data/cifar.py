"""CIFAR-10 and CIFAR-100: downloaded, or from folders of the same images."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torchvision.datasets import CIFAR10, CIFAR100

from fovea.data.folder import find_tree, resolve_root
from fovea.data.layout import split_folders
from fovea.data.module import ImageDataModule
from fovea.data.sources import MemorySource, SizedFileSource
from fovea.data.splits import Found, Split
from fovea.errors import FoveaError
from fovea.types import Preprocessing

logger = logging.getLogger(__name__)

SIZE = 32

# Mean and standard deviation over the pixels of the train split, [0, 1] scale: the values that
# most published CIFAR code uses; recomputed from the images they agree to the digits given.
STATISTICS = {
    10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


class CIFARDataModule(ImageDataModule):
    """60,000 RGB images of 32 x 32 pixels in 10 or 100 classes; val is cut from the train split.

    Args:
        root: folder with torchvision's copy (fetched when absent, md5 checked), or with the images
            as files: ``train/<class>/``, ``test/<class>/``.
        num_classes: 10 or 100.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    def __init__(self, root: str, num_classes: int = 10, **common: Any) -> None:
        super().__init__(**common)
        if num_classes not in STATISTICS:
            raise FoveaError(f"data.num_classes={num_classes}: there are CIFAR-10 and CIFAR-100")
        self.root = resolve_root(root)
        self._variant = num_classes

    def _default_preprocessing(self) -> Preprocessing:
        mean, std = STATISTICS[self._variant]
        return Preprocessing(image_size=SIZE, channels=3, mean=mean, std=std, resize=SIZE)

    def _find(self) -> Found:
        if self.root.is_dir() and "train" in split_folders(self.root):
            return self._from_folders()
        return self._from_torchvision()

    def _from_folders(self) -> Found:
        found = find_tree(self.root, partial(SizedFileSource, size=SIZE))
        if len(found.class_names) != self._variant:
            raise FoveaError(
                f"{self.root} holds {len(found.class_names)} class folders, not the "
                f"{self._variant} of CIFAR-{self._variant}. For another set of classes: "
                f"data=folder data.root={self.root}"
            )
        found.layout = f"CIFAR-{self._variant} as files in {self.root}"
        return found

    def _from_torchvision(self) -> Found:
        kind = CIFAR10 if self._variant == 10 else CIFAR100
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{kind.filename}.lock"):
                train = _open(kind, self.root, train=True)
                test = _open(kind, self.root, train=False)
        except Exception as error:  # urllib, tarfile and torchvision each raise their own
            raise self._not_obtained(kind, error) from error
        return Found(
            class_names=list(train.classes),
            splits={"train": _in_memory(train, "train"), "test": _in_memory(test, "test")},
            undivided=False,
            layout=f"CIFAR-{self._variant} in {self.root}",
        )

    def _not_obtained(self, kind: type[CIFAR10], error: Exception) -> FoveaError:
        return FoveaError(
            f"CIFAR-{self._variant} is neither in {self.root} (looked for {kind.base_folder}/, "
            f"{kind.filename} and train/<class>/) nor could it be fetched from {kind.url} "
            f"({str(error) or type(error).__name__}). Download that file (md5 {kind.tgz_md5}) to "
            f"{self.root / kind.filename} and run the same command again, or point at a folder "
            f"of its images: data=cifar{self._variant} data.root=<folder with train/<class>/*.jpg "
            "and test/<class>/*.jpg>"
        )


def _open(kind: type[CIFAR10], root: Path, train: bool) -> CIFAR10:
    try:
        return kind(root, train=train)  # md5 of the unpacked files is checked here
    except RuntimeError:
        logger.info("fetching %s to %s", kind.filename, root)
        return kind(root, train=train, download=True)


def _in_memory(data: CIFAR10, name: str) -> Split:
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    source = MemorySource(images, f"{type(data).__name__.lower()}/{name}")
    return Split.whole(source, torch.tensor(data.targets))
