"""Corruption of what evaluation sees, made on the fly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fovea.data.corruptions import blur, digital, noise, weather
from fovea.data.corruptions.names import CORRUPTIONS, SEVERITIES
from fovea.data.corruptions.noise import Floats, Pixels
from fovea.data.corruptions.strengths import strength
from fovea.data.decoding import Picture
from fovea.data.sampling import stable_seed
from fovea.data.views import View
from fovea.errors import FoveaError, did_you_mean

Function = Callable[[Pixels, Any, np.random.Generator], Floats | Pixels]

FUNCTIONS: dict[str, Function] = {
    name: getattr(module, name)
    for module in (noise, blur, weather, digital)
    for name in CORRUPTIONS
    if hasattr(module, name)
}


@dataclass(frozen=True)
class Corruption:
    """One of ImageNet-C's corruptions.

    Attributes:
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.

    Raises:
        FoveaError: no such corruption or severity.
    """

    name: str
    severity: int

    def __post_init__(self) -> None:
        if self.name not in CORRUPTIONS:
            raise FoveaError(
                f"'{self.name}' is no corruption of ImageNet-C."
                f"{did_you_mean(self.name, CORRUPTIONS)}\n  There are {', '.join(CORRUPTIONS)}"
            )
        if self.severity not in SEVERITIES:
            raise FoveaError(
                f"Severity {self.severity}: there are {', '.join(map(str, SEVERITIES))}"
            )

    def __str__(self) -> str:
        return f"{self.name}, severity {self.severity}"

    def check(self) -> None:
        """Raise `FoveaError` where what the corruption is made of is not installed."""
        if self.name == "frost":
            weather.frost_folder()

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Return ``image`` (C, H, W) uint8 corrupted, likewise.

        A function of the image, the corruption and ``seed`` alone. The constants are those of the
        image's size, see `strengths`.
        """
        rng = np.random.default_rng(stable_seed("corruption", self.name, self.severity, seed))
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        constants = strength(self.name, self.severity, min(pixels.shape[:2]))
        corrupted = np.clip(FUNCTIONS[self.name](pixels, constants, rng), 0, 255)
        # The fraction is dropped, not rounded, as the authors' scripts store their images.
        return torch.from_numpy(corrupted.astype(np.uint8)).permute(2, 0, 1)


class CorruptedView:
    """What ``view`` sees, corrupted: at the size that the network gets.

    Args:
        view: of evaluation.
        corruption: of what it returns.
    """

    def __init__(self, view: View, corruption: Corruption) -> None:
        self.view = view
        self.corruption = corruption

    def __call__(self, picture: Picture, seed: int, place: Tensor | None = None, /) -> Tensor:
        """Return (C, H, W) uint8; the sample's ``seed`` says what is drawn."""
        return self.corruption(self.view(picture, seed, place), seed)
