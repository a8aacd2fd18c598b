"""The 15 corruptions of ImageNet-C in 5 severities, made on the fly from any image.

They follow the definitions and constants of Hendrycks and Dietterich 2019 (arXiv 1903.12261) for
images of 32, 64 and 224 pixels, in colour or grey. What differs from the published files: those of
ImageNet-C were stored as JPEGs of quality 85 after the corruption, and random numbers are others.
"""

from fovea.data.corruptions.names import CORRUPTIONS, GROUPS, SEVERITIES, chosen_corruptions
from fovea.data.corruptions.view import CorruptedView, Corruption

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "CorruptedView",
    "GROUPS",
    "SEVERITIES",
    "chosen_corruptions",
]
