"""ImageNet-C as it was distributed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from fovea.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from fovea.data.folder import find_tree, resolve_root
from fovea.data.imagenet import IMAGE_SIZE, imagenet_classes
from fovea.data.layout import shortened, subfolders
from fovea.data.sources import FileSource
from fovea.data.splits import Split
from fovea.data.stored_corruptions import StoredCorruptionsDataModule
from fovea.errors import FoveaError
from fovea.types import Preprocessing

_ADDRESS = "https://zenodo.org/record/2235448"


class ImageNetCDataModule(StoredCorruptionsDataModule):
    """ImageNet-C: the validation images of ImageNet-1k under 15 corruptions of 5 severities.

    Its images have 224 x 224 pixels: results are reported without another resize, which
    ``crop_ratio=1`` of its YAML says.

    Args:
        root: folder with ``<corruption>/<severity>/<wnid>/*.JPEG``; the corruptions may lie in
            folders of their groups (noise, blur, weather, digital), as the archives have them.
        classes: ``all`` expects the 1000 classes; ``some`` allows missing ones.

    Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261).
    """

    title = "ImageNet-C"

    def __init__(self, root: str, classes: Literal["all", "some"] = "all", **common: Any) -> None:
        super().__init__(**common)
        if classes not in ("all", "some"):
            raise FoveaError(f"data.classes={classes} is neither all nor some")
        self.root = resolve_root(root)
        self.classes = classes

    def _default_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=IMAGE_SIZE, resize=IMAGE_SIZE)

    def unlike_imagenet_c(self, split: str) -> str:
        """Return why the mCE is not to be had; empty where it is: with all classes."""
        return "" if self.classes == "all" else "not all of ImageNet's classes are there"

    def versions(self) -> list[Corruption]:
        """Return the versions that are there, in the paper's order."""
        folders = self._corruption_folders()
        found = [
            Corruption(name, severity)
            for name, folder in folders.items()
            for severity in SEVERITIES
            if (folder / str(severity)).is_dir()
        ]
        if not found:
            raise FoveaError(
                f"No ImageNet-C in {self.root} (data.root): looked for <corruption>/<1 to 5>/"
                f"<wnid>/*.JPEG, such as gaussian_noise/1/n01440764/. It is to be had from "
                f"{_ADDRESS}: unpack noise.tar, blur.tar, weather.tar and digital.tar there. Or "
                "make the corruptions on the fly: data=imagenet split=val corruptions=all"
            )
        return found

    def _corruption_folders(self) -> dict[str, Path]:
        there = subfolders(self.root) if self.root.is_dir() else []
        places = [self.root, *(self.root / name for name in there if name not in CORRUPTIONS)]
        return {
            name: place / name
            for name in CORRUPTIONS
            for place in places
            if (place / name).is_dir()
        }

    def _check(self, version: Corruption) -> None:
        folder = self._folder(version)
        known, there = imagenet_classes(), set(subfolders(folder))
        if strange := sorted(there - set(known)):
            raise FoveaError(
                f"{folder} has folders that are no ImageNet-1k class (wnid): {shortened(strange)}"
            )
        lacking = [wnid for wnid in known if wnid not in there]
        if lacking and self.classes == "all":
            raise FoveaError(
                f"{folder} lacks {len(lacking)} of the 1000 classes: {shortened(lacking)}. Unpack "
                f"its archive again ({_ADDRESS}), or say data.classes=some for those that are there"
            )

    def _read(self, version: Corruption) -> tuple[Split, list[str]]:
        folder, known = self._folder(version), imagenet_classes()
        found = find_tree(folder, FileSource, list(known)).splits["train"]
        assert isinstance(found.source, FileSource)
        # Corruption and severity belong to a path: all versions have files of the same names.
        prefix = f"{version.name}/{version.severity}/".encode()
        paths = np.strings.add(prefix, found.source.relative_paths(found.numbers))
        split = Split.whole(FileSource(folder.parents[1], paths), found.labels)
        return split, list(known.values())

    def _folder(self, version: Corruption) -> Path:
        return self._corruption_folders()[version.name] / str(version.severity)

    def _layout(self, version: Corruption) -> str:
        return f"ImageNet-C in {self.root}: {version}"
