"""Steps of torchvision that draw for each image from a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from fovea.data.decoding import Picture
from fovea.data.views import View


class SeededSteps:
    """A view, then steps that draw from torch's CPU generator, which is seeded for them.

    Only that generator, and it is put back: ``torch.manual_seed`` would also reset the GPU's.
    """

    def __init__(self, view: View, steps: v2.Transform) -> None:
        self.view = view
        self.steps = steps

    def __call__(self, picture: Picture, seed: int, place: Tensor | None = None, /) -> Tensor:
        """Return (C, H, W) uint8, elsewhere than in ``place``."""
        image = self.view(picture, seed)
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            changed: Tensor = self.steps(image)
        finally:
            torch.set_rng_state(state)
        return changed
