"""Residual blocks that begin as the identity."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck


def zero_last_norms(net: nn.Module) -> int:
    """Set the weight of the last norm in each residual block to zero; return how many there are.

    Of torchvision's ResNets, and of those of timm that say how (they begin that way by themselves).

    Source: Goyal et al. 2017 (arXiv 1706.02677), section 5.1; torchvision's ``zero_init_residual``.
    """
    count = 0
    for module in net.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            assert isinstance(last.weight, nn.Parameter)
            nn.init.zeros_(last.weight)
        elif callable(zero := getattr(module, "zero_init_last", None)):
            zero()
        else:
            continue
        count += 1
    return count
