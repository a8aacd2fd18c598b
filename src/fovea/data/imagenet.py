"""ImageNet-1k (ILSVRC2012): the 1000 classes in the order everyone uses, and their folders."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from fovea.data.corruptions.strengths import nearest_size
from fovea.data.folder import find_tree, resolve_root
from fovea.data.layout import shortened, split_folders, subfolders
from fovea.data.module import ImageDataModule
from fovea.data.splits import Found
from fovea.errors import FoveaError, did_you_mean
from fovea.types import Preprocessing

Classes = Literal["all", "some", "present"]

_CLASSES = ("all", "some", "present")

IMAGE_SIZE = 224
"""Side in pixels of what networks are judged on, and of ImageNet-C."""


@cache
def imagenet_classes() -> dict[str, str]:
    """Return the 1000 WordNet ids with a name each, unique, in label order.

    Source: the ids as timm lists them, the names as torchvision's weights do; both in the order of
    sorted ids, which all published ImageNet-1k weights share.
    """
    from timm.data import ImageNetInfo
    from torchvision.models import ResNet18_Weights

    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    return dict(zip(ImageNetInfo("imagenet-1k").label_names(), names, strict=True))


class ImageNetDataModule(ImageDataModule):
    """ImageNet-1k from ``root/{train,val}/<wnid>/*.JPEG``, or a part of it.

    The labels of the official test images are not public: what papers report is the official val
    split, which is ``val`` here. A val split cut from train, and the official one as ``test``, is
    ``official_val=test``.

    Args:
        root: folder; `scripts/prepare_imagenet.py` makes it from the official archives. A folder of
            wnid folders without train and val is split as `FolderDataModule` does.
        classes: ``all`` expects the 1000 classes; ``some`` allows missing ones and keeps the 1000
            labels, so that weights trained on all can be evaluated; ``present`` numbers those that
            are there from 0.
        official_val: which split the official val folder is, ``val`` or ``test``.
    """

    def __init__(
        self,
        root: str,
        classes: Classes = "all",
        official_val: Literal["val", "test"] = "val",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if classes not in _CLASSES:
            raise FoveaError(
                f"data.classes={classes} is not one of {', '.join(_CLASSES)}."
                f"{did_you_mean(str(classes), _CLASSES)}"
            )
        if official_val not in ("val", "test"):
            raise FoveaError(f"data.official_val={official_val} is neither val nor test")
        self.root = resolve_root(root)
        self.classes = classes
        self.official_val = official_val

    def _default_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=IMAGE_SIZE, resize=256)

    def unlike_imagenet_c(self, split: str) -> str:
        """Return why ``split`` under corruption is not as ImageNet-C is; empty where it is."""
        official = "cut_from" not in self.splits_recorded[split] and split == self.official_val
        if not official or self.classes != "all":
            return "these images are not all of ImageNet's validation images"
        side = min(self.image_shape[1:])
        if nearest_size(side) != IMAGE_SIZE:
            return f"at {side} pixels the corruptions are not as strong as at {IMAGE_SIZE}"
        return ""

    def _find(self) -> Found:
        if not self.root.is_dir() or not subfolders(self.root):
            raise FoveaError(
                f"No ImageNet in {self.root} (data.root): looked for train/<wnid>/*.JPEG and "
                "val/<wnid>/*.JPEG. From the official archives (https://image-net.org, an account "
                "is needed) it is made by: python scripts/prepare_imagenet.py <folder with the "
                f"archives> {self.root}"
            )
        found = find_tree(self.root, classes=self._wnids())
        names = imagenet_classes()
        found.class_names = [names[wnid] for wnid in found.class_names]
        found.layout = f"ImageNet in {self.root}"
        if self.official_val == "test" and "val" in found.splits:
            found.splits["test"] = found.splits.pop("val")
        if "test" not in found.splits and not found.undivided:
            found.missing["test"] = (
                "ImageNet's test labels are not public; results are reported on the official val "
                "split: use split=val. (To keep it for the end, data.official_val=test cuts "
                "another val split from train.)"
            )
        return found

    def _wnids(self) -> list[str]:
        """Return the class folders to read, in label order."""
        folders = split_folders(self.root)
        folder = self.root / folders.get("train", folders.get("val", ""))
        there, known = dict.fromkeys(subfolders(folder)), imagenet_classes()
        unknown = [name for name in there if name not in known]
        if unknown:
            raise FoveaError(
                f"{folder} has folders that are no ImageNet-1k class (wnid): {shortened(unknown)}. "
                f"For other classes: data=folder data.root={self.root}"
            )
        lacking = [wnid for wnid in known if wnid not in there]
        if lacking and self.classes == "all":
            raise FoveaError(self._incomplete(folder, lacking))
        return list(known) if self.classes != "present" else [w for w in known if w in there]

    def _incomplete(self, folder: Path, lacking: list[str]) -> str:
        return (
            f"{folder} lacks {len(lacking)} of the 1000 classes: {shortened(lacking)}. For a part "
            "of ImageNet say data.classes=present (labels numbered anew) or data.classes=some "
            "(labels of all 1000); for all of it run scripts/prepare_imagenet.py again, which goes "
            "on where it was cut."
        )
