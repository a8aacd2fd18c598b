"""The contract every data set fulfils: splits, classes, preprocessing."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch

from fovea.data.augment import Augment
from fovea.data.checking import BadImage, check_files, count_files
from fovea.data.class_choice import choose_classes
from fovea.data.corruptions import CorruptedView, Corruption
from fovea.data.dataset import ImageDataset, OnBadImage
from fovea.data.decoding import Decode
from fovea.data.layout import shortened
from fovea.data.preprocess import PreprocessingChoice
from fovea.data.processors import processor_share
from fovea.data.resident import HeldSource, InMemory
from fovea.data.sampling import Sampling
from fovea.data.settings import check_settings
from fovea.data.several_views import CENTER, SeveralViews, Views
from fovea.data.splits import Cutting, Found, Split, subset, unknown_split
from fovea.data.views import EvaluationView, View, whole_view
from fovea.errors import FoveaError
from fovea.types import Interpolation, Preprocessing

logger = logging.getLogger(__name__)

MAX_EVAL_BATCH = 256


class ImageData(ABC):
    """Images of K classes in train, val and perhaps test.

    A subclass says what there is (`_find`) and how its images are normalised by default
    (`_default_preprocessing`); cutting, sampling, augmenting and loading are the same for all.
    Nothing is read from disk before `prepare`.

    Args:
        batch_size: global: of one optimiser step, over all devices and accumulation steps.
        seed: of the order of training and of augmentation.
        split_seed: of cut splits and subsets. Not ``seed``, so that runs which differ in their
            seed share their splits.
        image_size: side in pixels of what the network sees. None, here and for the next five:
            what the pre-trained weights expect, else the data set's own.
        channels: 1 (grey) or 3 (RGB).
        mean: per channel, on the [0, 1] scale.
        std: per channel, on the [0, 1] scale.
        interpolation: ``bilinear`` or ``bicubic``.
        crop_ratio: evaluation resizes the shorter side to ``round(image_size / crop_ratio)`` and
            cuts the square from the centre.
        hflip: whether a mirrored image keeps its label.
        num_workers: processes that load; ``auto`` is one a processor, shared by the local ranks,
            16 at most; 0 loads in the training process.
        decode: ``auto`` is the fastest decoder for each file, see `open_picture`; ``simplejpeg``;
            ``pil`` is Pillow for everything; ``gpu`` decodes JPEGs on the GPU.
        in_memory: whether a split is held in memory as evaluation sees it: decoded once, not in
            every epoch, and on the GPU where it fits. ``auto`` does so for what fits in
            ``memory_fraction``, in runs of more than one epoch. Training on random resized crops
            needs the original images, and is always read from the files.
        memory_fraction: of the memory that is free, shared by the local ranks, and of the GPU's.
        val_fraction: of the images, cut from train where the data set has no val split.
        test_fraction: likewise, only where the data set is not divided at all.
        fraction: stratified part of train that is used, in (0, 1].
        limit_per_class: the most train images a class may keep; None for no limit.
        classes: names of those to keep, see `choose_classes`; None for all.
        sampling: ``shuffle`` or ``balanced``, see `EpochOrder`.
        repeats: repeated augmentation, see `EpochOrder`.
        on_bad_image: ``error`` stops with the path; ``skip`` goes on and counts (`bad_images`);
            ``report`` also warns at once.
        eval_batch_size: per device, for evaluation. None: ``batch_size``, at most 256.
        augment: None for no augmentation.

    Attributes:
        views: what `ImageDataModule.dataloader` gives of each image in evaluation.

    Raises:
        FoveaError: naming the key, for values outside their range.
    """

    views: Views = CENTER

    def __init__(
        self,
        *,
        batch_size: int = 64,
        seed: int = 0,
        split_seed: int = 0,
        image_size: int | None = None,
        channels: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: Interpolation | None = None,
        crop_ratio: float | None = None,
        hflip: bool = True,
        num_workers: int | Literal["auto"] = "auto",
        decode: Decode = "auto",
        in_memory: InMemory = "auto",
        memory_fraction: float = 0.25,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        fraction: float = 1.0,
        limit_per_class: int | None = None,
        classes: Sequence[str | int] | None = None,
        sampling: Sampling = "shuffle",
        repeats: int = 1,
        on_bad_image: OnBadImage = "error",
        eval_batch_size: int | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.split_seed = split_seed
        self.hflip = hflip
        self.num_workers = num_workers
        self.decode: Decode = decode
        self.in_memory: InMemory = in_memory
        self.memory_fraction = memory_fraction
        self.fraction = fraction
        self.limit_per_class = limit_per_class
        self.chosen_classes = classes
        self.sampling: Sampling = sampling
        self.repeats = repeats
        self.on_bad_image: OnBadImage = on_bad_image
        if eval_batch_size is None:
            eval_batch_size = min(batch_size, MAX_EVAL_BATCH)
        self.eval_batch_size = eval_batch_size
        self.augment = augment or Augment(crop="none", flip=0.0)
        self.choice = PreprocessingChoice(
            image_size=image_size,
            channels=channels,
            mean=None if mean is None else tuple(mean),
            std=None if std is None else tuple(std),
            interpolation=interpolation,
            crop_ratio=crop_ratio,
        )
        self.cutting = Cutting(val_fraction, test_fraction, split_seed)
        self.corruption: Corruption | None = None
        self._weights_preprocessing: Preprocessing | None = None
        self._found: Found | None = None
        self._splits: dict[str, Split] = {}
        self._record: dict[str, Any] = {}
        check_settings(
            batch_size=batch_size,
            eval_batch_size=self.eval_batch_size,
            num_workers=num_workers,
            decode=decode,
            in_memory=in_memory,
            memory_fraction=memory_fraction,
            fraction=fraction,
            limit_per_class=limit_per_class,
            sampling=sampling,
            repeats=repeats,
            on_bad_image=on_bad_image,
        )

    # What a data set says of itself.

    @abstractmethod
    def _find(self) -> Found:
        """Return what is there, downloading it first where that is possible.

        Raises:
            FoveaError: what was looked for, where, and the command that gets it.
        """

    @abstractmethod
    def _default_preprocessing(self) -> Preprocessing:
        """Return the data set's own preprocessing."""

    # What there is.

    def prepare(self) -> None:
        """Locate the images, downloading if need be, and settle the splits. Idempotent.

        Every process may call it, at the same time.

        Raises:
            FoveaError: for missing data, disagreeing classes, and preprocessing that does not fit.
        """
        if self._found is not None:
            return
        _ = self.preprocessing  # settings that do not fit are told before a long search
        found = self._find()
        if self.chosen_classes is not None:
            found = choose_classes(found, self.chosen_classes)
        splits, record = self.cutting.apply(found)
        if "train" in splits and (self.fraction < 1 or self.limit_per_class is not None):
            splits["train"] = subset(
                splits["train"],
                len(found.class_names),
                self.fraction,
                self.limit_per_class,
                self.split_seed,
            )
            record["train"].update(
                fraction=self.fraction,
                limit_per_class=self.limit_per_class,
                split_seed=self.split_seed,
            )
        if "train" in splits and (empty := splits["train"].counts(len(found.class_names)).count(0)):
            logger.warning("%d of %d classes have no training image", empty, len(found.class_names))
        for name, split in splits.items():
            record[name].update(count=len(split), fingerprint=split.fingerprint())
        self._splits, self._record, self._found = splits, record, found

    @property
    def found(self) -> Found:
        """What the data set holds; prepares at the first call."""
        self.prepare()
        assert self._found is not None
        return self._found

    @property
    def splits(self) -> dict[str, Split]:
        """The splits there are, by name, in the order train, val, test."""
        self.prepare()
        return self._splits

    @property
    def class_names(self) -> list[str]:
        """The classes in label order."""
        return self.found.class_names

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def split_sizes(self) -> dict[str, int]:
        """Images in each split that exists."""
        return {name: len(split) for name, split in self.splits.items()}

    @property
    def splits_recorded(self) -> dict[str, Any]:
        """What was cut from what, with which seed, and a fingerprint of each split; JSON-plain."""
        self.prepare()
        return self._record

    def split_fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each split: which images it holds, under which labels.

        As the data set numbers the classes, whatever `use_class_order` did since. Two runs with
        the same fingerprint under a name share that split, wherever their folders lie.
        """
        return {name: entry["fingerprint"] for name, entry in self.splits_recorded.items()}

    def unlike_imagenet_c(self, split: str) -> str:
        """Return why ``split`` under corruption is not as ImageNet-C is; empty where it is.

        An mCE divides by AlexNet's errors on ImageNet-C, so it is of such images alone.
        """
        return "these images are not ImageNet's validation images"

    def class_counts(self, split: str) -> list[int]:
        """Return the images of each class in ``split``, in label order."""
        return self._split(split).counts(self.num_classes)

    def _split(self, name: str) -> Split:
        if name not in self.splits:
            raise unknown_split(name, list(self.splits), self.found.missing)
        return self._splits[name]

    def use_class_order(self, class_names: Sequence[str]) -> None:
        """Number the classes as ``class_names`` does, those of a trained network.

        The data may lack some of them.

        Raises:
            FoveaError: naming the classes that the network does not know.
        """
        strange = [name for name in self.class_names if name not in class_names]
        if strange:
            raise FoveaError(
                f"The checkpoint knows {len(class_names)} classes ({shortened(class_names)}), and "
                f"the data set ({self.found.layout}) has others: {shortened(strange)}. Evaluate it "
                "on data with its own classes, or train a new head on these."
            )
        new = torch.tensor([list(class_names).index(name) for name in self.class_names])
        for split in self._splits.values():
            split.labels = new[split.labels]
        self.found.class_names = list(class_names)

    # How an image becomes the network's input.

    def use_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Take what the user left open from ``preprocessing``, that of pre-trained weights."""
        self._weights_preprocessing = preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        """What holds for evaluation, after the user's settings and `use_preprocessing`."""
        return self.choice.resolve(self._default_preprocessing(), self._weights_preprocessing)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        return self.preprocessing.image_shape

    def dataset(self, split: str) -> ImageDataset:
        """Return ``split`` as evaluation sees it, without augmentation.

        Raises:
            FoveaError: for a split that does not exist.
        """
        return self._dataset(split, training=False)

    def _dataset(
        self, name: str, training: bool, held: HeldSource | None = None, views: Views = CENTER
    ) -> ImageDataset:
        """Return a split; its images come from ``held`` where it is given."""
        split = self._split(name)
        preprocessing = self.preprocessing
        if training:
            view = self.augment.view(preprocessing, held is not None)
        else:
            view = self._evaluation_view(held is not None, views)
        channels, height, width = preprocessing.image_shape
        growth = None
        if training and self.augment.resolved_crop(height) == "resized":
            height = width = self.augment.train_size.largest(height)
            if self.augment.train_size.grow is not None:
                growth = partial(self.augment.at_epoch, preprocessing)
        return ImageDataset(
            split.source if held is None else held,
            split.numbers if held is None else torch.arange(len(split)),
            split.labels,
            view,
            (channels * views.num_crops, height, width),
            self.seed,
            training,
            self.on_bad_image,
            # Pixels that are to be corrupted are needed before the batch is on its device.
            "auto" if self.decode == "gpu" and not training and self.corruption else self.decode,
            channels,
            growth,
        )

    def _evaluation_view(self, held: bool, views: Views) -> View:
        """Return what evaluation sees; ``held``: of images that are held as it sees them."""
        if views.cropped_otherwise:
            return SeveralViews(self.preprocessing, views)
        if self.corruption is None:
            return EvaluationView(self.preprocessing)
        view = whole_view if held else EvaluationView(self.preprocessing)
        return CorruptedView(view, self.corruption)

    def check_corruption(self, corruption: Corruption) -> None:
        """Raise `FoveaError` where ``corruption`` can't be made, or not of the `views`."""
        if self.views.cropped_otherwise:
            raise FoveaError(
                f"views={self.views.name}: corruptions are defined for the centre crop alone. Take "
                "views=center or views=flip with them."
            )
        corruption.check()

    @contextmanager
    def corrupting(self, corruption: Corruption | None) -> Iterator[None]:
        """Let evaluation see its images corrupted, or as they are (None), inside the context.

        What is drawn for an image depends on ``seed``, the corruption and its place in the split.
        A data set that was distributed in corrupted versions shows that version instead.

        Raises:
            FoveaError: the corruption can't be made here, or is not among the versions.
        """
        if corruption is not None:
            self.check_corruption(corruption)
        before, self.corruption = self.corruption, corruption
        try:
            yield
        finally:
            self.corruption = before

    def num_files(self) -> int:
        """Return how many image files `check` reads; 0 for a data set held in memory."""
        return count_files(self.splits)

    def check(self, num_workers: int | None = None) -> list[BadImage]:
        """Read every file of every split once and return what is wrong or odd.

        Images held in memory are passed over: see `num_files`.

        Args:
            num_workers: threads. None: one a processor, 16 at most.
        """
        return check_files(self.splits, self.class_names, num_workers or processor_share(1))
