"""CIFAR-10-C and CIFAR-100-C as they were distributed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fovea.data.cifar import SIZE, STATISTICS
from fovea.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from fovea.data.folder import resolve_root
from fovea.data.sources import MemorySource
from fovea.data.splits import Split
from fovea.data.stored_corruptions import StoredCorruptionsDataModule
from fovea.errors import FoveaError
from fovea.types import Preprocessing

_ADDRESSES = {10: "https://zenodo.org/record/2535967", 100: "https://zenodo.org/record/3555552"}

_DISTRIBUTED = 50_000
"""Rows of a file: 10,000 test images in five severities."""

# In label order, which is that of the alphabet; the files have numbers alone. Source: Krizhevsky
# 2009, the fine labels of CIFAR-100.
_CLASSES = {
    10: "airplane automobile bird cat deer dog frog horse ship truck",
    100: (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
        "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach "
        "couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house "
        "kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle "
        "mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
        "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal "
        "shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper "
        "table tank telephone television tiger tractor train trout tulip turtle wardrobe whale "
        "willow_tree wolf woman worm"
    ),
}


class CIFARCDataModule(StoredCorruptionsDataModule):
    """CIFAR-10-C or CIFAR-100-C: the test images under 15 corruptions of 5 severities.

    Args:
        root: folder with ``<corruption>.npy``, (5 n, 32, 32, 3) uint8, the severities one after
            the other, and ``labels.npy``, (5 n,); n is 10,000.
        num_classes: 10 or 100.

    Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261).
    """

    def __init__(self, root: str, num_classes: int = 10, **common: Any) -> None:
        super().__init__(**common)
        if num_classes not in STATISTICS:
            raise FoveaError(f"data.num_classes={num_classes}: there are CIFAR-10-C and -100-C")
        self.root = resolve_root(root)
        self._variant = num_classes
        self.title = f"CIFAR-{num_classes}-C"

    def _default_preprocessing(self) -> Preprocessing:
        mean, std = STATISTICS[self._variant]
        return Preprocessing(image_size=SIZE, channels=3, mean=mean, std=std, resize=SIZE)

    def versions(self) -> list[Corruption]:
        """Return the versions that are there, in the paper's order."""
        there = [name for name in CORRUPTIONS if (self.root / f"{name}.npy").is_file()]
        if not there or not (self.root / "labels.npy").is_file():
            raise FoveaError(
                f"No {self.title} in {self.root} (data.root): looked for labels.npy and "
                "<corruption>.npy, such as gaussian_noise.npy. It is to be had from "
                f"{_ADDRESSES[self._variant]} ({self.title}.tar): unpack it and point at the "
                "folder. Or make the corruptions on the fly: "
                f"data=cifar{self._variant} corruptions=all"
            )
        return [Corruption(name, severity) for name in there for severity in SEVERITIES]

    def _check(self, version: Corruption) -> None:
        labels, (file, images) = self._labels(), self._images(version)
        again = f"Download it again from {_ADDRESSES[self._variant]}"
        if images.shape[1:] != (SIZE, SIZE, 3) or images.dtype != np.uint8:
            raise FoveaError(
                f"{file} holds {images.dtype} of shape {images.shape}, where uint8 of "
                f"{(len(labels), SIZE, SIZE, 3)} is expected. {again}"
            )
        if len(images) != len(labels):
            raise FoveaError(
                f"{file} holds {len(images)} images, and labels.npy beside it {len(labels)} "
                f"labels; of each there are {_DISTRIBUTED}. One of the two is not whole. {again}"
            )

    def _read(self, version: Corruption) -> tuple[Split, list[str]]:
        labels, (_, images) = self._labels(), self._images(version)
        count = len(labels) // len(SEVERITIES)
        rows = slice((version.severity - 1) * count, version.severity * count)
        pixels = torch.from_numpy(images[rows].copy()).permute(0, 3, 1, 2)
        source = MemorySource(pixels, f"{version.name}/{version.severity}")
        split = Split.whole(source, torch.from_numpy(labels[rows].astype(np.int64)))
        return split, _CLASSES[self._variant].split()

    def _images(self, version: Corruption) -> tuple[Path, NDArray[Any]]:
        file = self.root / f"{version.name}.npy"
        return file, _opened(file)

    def _labels(self) -> NDArray[Any]:
        """Return the labels of all severities, (5 n,) of whole numbers in range."""
        file = self.root / "labels.npy"
        labels, most = _opened(file), self._variant - 1
        whole = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels)
        if not whole or len(labels) % len(SEVERITIES):
            raise FoveaError(
                f"{file} holds {labels.dtype} of shape {labels.shape}, where whole numbers are "
                f"expected, one an image of 5 severities: ({_DISTRIBUTED},). Download it again "
                f"from {_ADDRESSES[self._variant]}"
            )
        if labels.min() < 0 or labels.max() > most:
            raise FoveaError(
                f"{file} has labels from {labels.min()} to {labels.max()}, not 0 to {most}: is it "
                f"of the other {self.title.rsplit('-', 2)[0]}?"
            )
        return labels

    def _layout(self, version: Corruption) -> str:
        return f"{self.title} in {self.root}: {version}"


def _opened(file: Path) -> NDArray[Any]:
    """Return the array in ``file``, whose rows are read as they are asked for."""
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # whatever a damaged header brings about
        why = error.strerror if isinstance(error, OSError) else "damaged, cut off, or no .npy file"
        raise FoveaError(
            f"{file} can't be read as a NumPy array: {why}. Unpack its archive again."
        ) from error
