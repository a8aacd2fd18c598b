"""Backbones from torchvision and timm behind one face, heads, and the loading of weights.

A backbone is built with random weights; `load_weights` fills it afterwards and reports what it did.
"""

from fovea.models.backbone import Backbone
from fovea.models.factory import create_backbone
from fovea.models.head import Head, create_head
from fovea.models.sources import weights_preprocessing
from fovea.models.speedrun import SpeedrunNet
from fovea.models.weights import LoadReport, load_weights

__all__ = [
    "Backbone",
    "Head",
    "LoadReport",
    "SpeedrunNet",
    "create_backbone",
    "create_head",
    "load_weights",
    "weights_preprocessing",
]
