"""LARS: a learning rate for each weight matrix, by the norms of its values and its gradient."""

from __future__ import annotations

from typing import Any

import timm.optim
from torch import Tensor


class Lars(timm.optim.Lars):
    """timm's LARS, with rates that are adapted for weights and left alone for biases and norms.

    timm adapts the rate of what decays; without weight decay, as in a linear probe, it would be
    plain SGD. Here matrices and kernels are adapted with decay or without it, 1-d parameters only
    where they decay.

    Source: You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks", algorithm
    1; what is adapted, as in the ``util/lars.py`` of MoCo v3 and MAE.

    Args:
        params: groups as `fovea.optim.param_groups` makes them. One that holds 1-d parameters and
            others (a class token beside biases) becomes two.
        options: of ``timm.optim.Lars``: lr, momentum, weight_decay, trust_coeff, nesterov …
    """

    def __init__(self, params: Any, **options: Any) -> None:
        groups = []
        for group in params:
            for adapted in (True, False):
                members = [one for one in group["params"] if (_tensor(one).ndim > 1) == adapted]
                if members:
                    groups.append({**group, "params": members, "always_adapt": adapted})
        super().__init__(groups, **options)


def _tensor(member: tuple[str, Tensor] | Tensor) -> Tensor:
    return member[1] if isinstance(member, tuple) else member
