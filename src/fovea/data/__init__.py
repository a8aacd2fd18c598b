"""Image data sets: decoding, splits, sampling, augmentation."""

from fovea.data.augment import Augment
from fovea.data.checking import BadImage
from fovea.data.cifar import CIFARDataModule
from fovea.data.cifar_c import CIFARCDataModule
from fovea.data.corruptions import CORRUPTIONS, Corruption, chosen_corruptions
from fovea.data.dataset import ImageDataset
from fovea.data.digits import DigitsDataModule
from fovea.data.folder import FolderDataModule
from fovea.data.imagenet import ImageNetDataModule, imagenet_classes
from fovea.data.imagenet_c import ImageNetCDataModule
from fovea.data.imagenet_tests import ImageNetTestDataModule
from fovea.data.images import (
    IMAGE_SUFFIXES,
    UnreadableImage,
    decode_image,
    to_tensor,
)
from fovea.data.module import ImageDataModule
from fovea.data.real_labels import read_real_labels, real_labels_of
from fovea.data.sampling import EvalBatchSampler, GlobalBatchSampler, SampleKey
from fovea.data.shards import ShardsDataModule
from fovea.data.stored_corruptions import StoredCorruptionsDataModule
from fovea.data.views import EvaluationView, evaluation_transform

__all__ = [
    "Augment",
    "BadImage",
    "CIFARCDataModule",
    "CIFARDataModule",
    "CORRUPTIONS",
    "Corruption",
    "DigitsDataModule",
    "EvalBatchSampler",
    "EvaluationView",
    "FolderDataModule",
    "GlobalBatchSampler",
    "IMAGE_SUFFIXES",
    "ImageDataModule",
    "ImageDataset",
    "ImageNetCDataModule",
    "ImageNetDataModule",
    "ImageNetTestDataModule",
    "SampleKey",
    "ShardsDataModule",
    "StoredCorruptionsDataModule",
    "UnreadableImage",
    "chosen_corruptions",
    "decode_image",
    "evaluation_transform",
    "imagenet_classes",
    "read_real_labels",
    "real_labels_of",
    "to_tensor",
]
