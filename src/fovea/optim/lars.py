"""LARS: a learning rate for each weight matrix, by the norms of its values and its gradient."""

from __future__ import annotations

from typing import Any

import timm.optim


class Lars(timm.optim.Lars):
    """timm's LARS, with rates that are adapted for weights and left alone for biases and norms.

    timm adapts the rate of what decays; without weight decay, as in a linear probe, it would be
    plain SGD. Here matrices and kernels are adapted with decay or without it, 1-d parameters only
    where they decay.

    Source: You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks", algorithm
    1; what is adapted, as in the ``util/lars.py`` of MoCo v3 and MAE.

    Args:
        params: groups as `fovea.optim.param_groups` makes them: either all of their parameters are
            1-d, or none is where it decays differently.
        options: of ``timm.optim.Lars``: lr, momentum, weight_decay, trust_coeff, nesterov …
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        for group in self.param_groups:
            group["always_adapt"] = group["params"][0].ndim > 1
