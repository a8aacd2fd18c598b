"""Harder test sets for networks trained on ImageNet-1k: V2, A, R and Sketch.

ObjectNet is not among them: its 313 classes are of its own, 113 of them stand for one or several
classes of ImageNet by a table inside its archive (behind a password and a license that forbids
training on it), and its images have a red border to be cut off. A prediction is right there when it
is one of several classes, where a label here is one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from fovea.data.folder import find_tree, resolve_root
from fovea.data.imagenet import imagenet_classes
from fovea.data.layout import shortened, subfolders
from fovea.data.module import ImageDataModule
from fovea.data.splits import Found
from fovea.errors import FoveaError, did_you_mean
from fovea.types import Preprocessing

Variant = Literal["v2", "a", "r", "sketch"]


@dataclass(frozen=True)
class _TestSet:
    """What there is to know of a test set.

    Attributes:
        title: as papers name it.
        address: where it is to be had.
        layout: of its files below the root.
    """

    title: str
    address: str
    layout: str


_TEST_SETS: dict[str, _TestSet] = {
    "v2": _TestSet(
        "ImageNet-V2",
        "https://github.com/modestyachts/ImageNetV2 (for instance "
        "imagenetv2-matched-frequency.tar.gz)",
        "<0 to 999>/*.jpeg",
    ),
    "a": _TestSet(
        "ImageNet-A",
        "https://github.com/hendrycks/natural-adv-examples (imagenet-a.tar)",
        "<wnid>/*.jpg of 200 classes",
    ),
    "r": _TestSet(
        "ImageNet-R",
        "https://github.com/hendrycks/imagenet-r (imagenet-r.tar)",
        "<wnid>/*.jpg of 200 classes",
    ),
    "sketch": _TestSet(
        "ImageNet-Sketch", "https://github.com/HaohanWang/ImageNet-Sketch", "<wnid>/*.JPEG"
    ),
}


class ImageNetTestDataModule(ImageDataModule):
    """A test set with classes of ImageNet-1k: a split ``test``, and nothing to train on.

    - ``v2``: new images collected as the validation set was (Recht et al. 2019, "Do ImageNet
      classifiers generalize to ImageNet?"). Its folders are the class numbers 0 to 999, in the
      order of sorted wnids.
    - ``a``: photographs that ResNet-50 got wrong, of 200 classes (Hendrycks et al. 2021, "Natural
      adversarial examples").
    - ``r``: art, toys, and other renditions of 200 classes (Hendrycks et al. 2021, "The many faces
      of robustness").
    - ``sketch``: sketches of all classes (Wang et al. 2019, "Learning robust global
      representations by penalizing local predictive power").

    The classes of A and R are those 200 alone: of a network of 1000 the other outputs are left out
    when it is judged.

    Args:
        root: folder of the class folders, or one that holds nothing else but that folder.
        variant: which test set.
        classes: ``all`` expects every class of the set; ``some`` allows missing ones.
    """

    def __init__(
        self,
        root: str,
        variant: Variant,
        classes: Literal["all", "some"] = "all",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if variant not in _TEST_SETS:
            raise FoveaError(
                f"data.variant={variant} is not one of {', '.join(_TEST_SETS)}."
                f"{did_you_mean(str(variant), _TEST_SETS)}"
            )
        if classes not in ("all", "some"):
            raise FoveaError(f"data.classes={classes} is neither all nor some")
        self.root = resolve_root(root)
        self.variant = variant
        self.classes = classes

    def _default_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=224, resize=256)

    def _find(self) -> Found:
        known = test_set_folders(self.variant)
        about = _TEST_SETS[self.variant]
        folder = self._class_root(known)
        there = set(subfolders(folder))
        if strange := sorted(there - set(known)):
            raise FoveaError(
                f"{folder} has folders that are no class of {about.title}: {shortened(strange)}. "
                f"It is laid out as {about.layout}; for other classes: data=folder "
                f"data.root={folder}"
            )
        lacking = [name for name in known if name not in there]
        if lacking and self.classes == "all":
            raise FoveaError(
                f"{folder} lacks {len(lacking)} of the {len(known)} classes of {about.title}: "
                f"{shortened(lacking)}. Unpack the archive again ({about.address}), or say "
                "data.classes=some to evaluate on those that are there."
            )
        found = find_tree(folder, classes=list(known))
        return Found(
            list(known.values()),
            {"test": found.splits["train"]},
            undivided=False,
            layout=f"{about.title} in {self.root}",
            missing={name: only_a_test_set(about.title) for name in ("train", "val")},
        )

    def _class_root(self, known: dict[str, str]) -> Path:
        """Return the folder that holds the class folders: ``root``, or the only one in it."""
        there = subfolders(self.root) if self.root.is_dir() else []
        about = _TEST_SETS[self.variant]
        if not there:
            raise FoveaError(
                f"No {about.title} in {self.root} (data.root): looked for {about.layout}. It is to "
                f"be had from {about.address}; unpack it there, or point at it by data.root=…"
            )
        if any(name in known for name in there):
            return self.root
        if len(there) > 1:
            raise FoveaError(
                f"{self.root} holds folders of which none is a class of {about.title}: "
                f"{shortened(there)}. It is laid out as {about.layout}; if one of them holds it, "
                f"say which: data.root={self.root / there[0]}"
            )
        return self.root / there[0]


def test_set_folders(variant: Variant) -> dict[str, str]:
    """Return the class folders of a test set with the name of each class, in label order.

    Source of the 200 classes of A and R: the lists that timm ships.
    """
    names = imagenet_classes()
    if variant == "v2":  # by number: as text "10" would come before "2"
        return {str(number): name for number, name in enumerate(names.values())}
    if variant == "sketch":
        return names
    listed = files("timm.data") / "_info" / f"imagenet_{variant}_synsets.txt"
    return {wnid: names[wnid] for wnid in listed.read_text().split()}


def only_a_test_set(title: str) -> str:
    """Return what to say where another split of a test set is asked for."""
    return f"{title} is a test set: evaluate on it by split=test, and train on other data."
