"""Blur in front of strided convolutions, so that what they skip is not lost by chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

MIN_CHANNELS = 16
"""Convolutions of fewer input channels, those that see the image, stay as they are."""


class BlurredConv2d(nn.Conv2d):
    """A convolution that sees its input blurred by a binomial filter, [1, 2, 1] / 4 each way.

    Its parameters are those of the convolution it stands for, under the same names, so published
    weights fit. Zeros lie around the input.

    Source: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again" (arXiv 1904.11486),
    section 3.3; in the form of ffcv-imagenet's ``BlurPoolConv2d``, which blurs first and then
    convolves with the stride.

    Args:
        conv: whose weight and bias are taken over, not copied.
    """

    blur: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        row = torch.tensor([1.0, 2.0, 1.0], device=conv.weight.device) / 4
        kernel = torch.outer(row, row).expand(conv.in_channels, 1, 3, 3).clone()
        self.register_buffer("blur", kernel, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C', h, w) of ``images`` (B, C, H, W)."""
        blurred = conv2d(images, self.blur.to(images.dtype), padding=1, groups=self.in_channels)
        return super().forward(blurred)


def blur_strided(net: nn.Module) -> int:
    """Put a blur in front of each strided convolution in ``net``; return how many there are.

    Only of `MIN_CHANNELS` input channels or more.
    """
    count = 0
    for name, child in net.named_children():
        strided = isinstance(child, nn.Conv2d) and max(child.stride) > 1
        if isinstance(child, nn.Conv2d) and strided and child.in_channels >= MIN_CHANNELS:
            setattr(net, name, BlurredConv2d(child))
            count += 1
        else:
            count += blur_strided(child)
    return count
