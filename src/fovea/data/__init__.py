"""Image data sets: decoding, splits, sampling, augmentation."""

from fovea.data.augment import Augment
from fovea.data.checking import BadImage
from fovea.data.cifar import CIFARDataModule
from fovea.data.dataset import ImageDataset
from fovea.data.digits import DigitsDataModule
from fovea.data.folder import FolderDataModule
from fovea.data.imagenet import ImageNetDataModule, imagenet_classes
from fovea.data.images import (
    IMAGE_SUFFIXES,
    UnreadableImage,
    decode_image,
    to_tensor,
)
from fovea.data.module import ImageDataModule
from fovea.data.sampling import EvalBatchSampler, GlobalBatchSampler, SampleKey
from fovea.data.shards import ShardsDataModule
from fovea.data.views import EvaluationView, evaluation_transform

__all__ = [
    "Augment",
    "BadImage",
    "CIFARDataModule",
    "DigitsDataModule",
    "EvalBatchSampler",
    "EvaluationView",
    "FolderDataModule",
    "GlobalBatchSampler",
    "IMAGE_SUFFIXES",
    "ImageDataModule",
    "ImageDataset",
    "ImageNetDataModule",
    "SampleKey",
    "ShardsDataModule",
    "UnreadableImage",
    "decode_image",
    "evaluation_transform",
    "imagenet_classes",
    "to_tensor",
]
