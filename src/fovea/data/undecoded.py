"""Batches whose JPEGs are decoded on the GPU: workers read files and draw crops, no more.

Written for ``data.decode=gpu``. The steps are tested on the CPU; it was never run on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fovea.data import nvimagecodec
from fovea.data.decoding import JpegPicture, Picture, open_picture
from fovea.data.views import Box, PartView
from fovea.errors import FoveaError


@dataclass(frozen=True)
class EncodedPart:
    """The part of a JPEG that is wanted.

    Attributes:
        data: the whole file.
        box: of the part.
        name: for messages.
    """

    data: bytes
    box: Box
    name: str


@dataclass(frozen=True)
class UndecodedImages:
    """What stands in `Batch.images` until the batch is on its device.

    Attributes:
        images: for each sample a part to decode, or finished (C, H, W) uint8 where nvJPEG would not
            do: other formats, turned or grey pictures, fill-ups.
        view: that finishes the parts.
    """

    images: list[EncodedPart | Tensor]
    view: PartView

    def decode(self, device: torch.device) -> Tensor:
        """Return the batch (B, C, H, W) uint8, channels_last, on ``device``.

        What the decoder there refuses is decoded on the CPU.

        Raises:
            UnreadableImage: a file that Pillow cannot read either.
        """
        parts = [image for image in self.images if isinstance(image, EncodedPart)]
        decoded = iter(nvimagecodec.decode_parts([(p.data, p.box) for p in parts], device))
        finished = []
        for image in self.images:
            if isinstance(image, EncodedPart):
                pixels = next(decoded)
                if pixels is None:
                    picture = open_picture(image.data, image.name)
                    pixels = picture.region(*image.box, target=self.view.target).to(device)
                image = self.view.finish(pixels)
            finished.append(image.to(device).permute(1, 2, 0))
        return torch.stack(finished).permute(0, 3, 1, 2)


def undecoded(picture: Picture, view: PartView, seed: int) -> EncodedPart | Tensor:
    """Return the part of ``picture`` that ``view`` wants; decoded where nvJPEG would not do."""
    if isinstance(picture, JpegPicture) and picture.turn == 1 and picture.channels == 3:
        box = view.box(picture.height, picture.width, seed)
        name = picture.name if isinstance(picture.name, str) else picture.name()
        return EncodedPart(picture.data, box, name)
    return view(picture, seed)


def check_gpu_decoding(view: object, device: torch.device) -> None:
    """Raise unless batches can be decoded on ``device``.

    Raises:
        FoveaError: no GPU, no nvImageCodec, or a policy, which wants decoded images.
    """
    if device.type != "cuda":
        raise FoveaError(
            f"data.decode=gpu needs an NVIDIA GPU, and this run trains on {device}. Type "
            "data.decode=auto"
        )
    if not nvimagecodec.available():
        raise FoveaError("data.decode=gpu needs nvImageCodec: pip install 'fovea[gpu]'")
    if not isinstance(view, PartView):
        raise FoveaError(
            "data.decode=gpu decodes after the loader, and augment.policy, rotate and translate "
            "change decoded images in it. Type data.decode=auto, or augment=basic"
        )
