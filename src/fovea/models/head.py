"""Heads: from pooled features to class scores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fovea.errors import FoveaError


class Head(nn.Module):
    """Features (B, F) -> logits (B, K).

    Attributes:
        hidden: the layers before the last one; empty for a linear head.
        dropout: in front of the last layer.
        linear: the last layer.
        scale: factor on what it gives.
    """

    def __init__(
        self, hidden: nn.Module, dropout: nn.Module, linear: nn.Linear, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.dropout = dropout
        self.linear = linear
        self.scale = scale

    @property
    def num_classes(self) -> int:
        """K."""
        return self.linear.out_features

    @property
    def is_linear(self) -> bool:
        """Whether the logits are an affine function of the features (dropout aside)."""
        return not list(self.hidden.children())

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of ``features`` (B, F)."""
        logits: Tensor = self.linear(self.dropout(self.hidden(features)))
        return logits if self.scale == 1 else logits * self.scale


def create_head(
    num_features: int,
    num_classes: int,
    hidden: int | Sequence[int] | None = None,
    dropout: float = 0.0,
    zero_init: bool = False,
    bias_init: float | None = None,
    bias: bool = True,
    scale: float = 1.0,
) -> Head:
    """Return a head from (B, ``num_features``) to (B, ``num_classes``).

    Args:
        num_features: F, what the backbone gives.
        num_classes: K, what the data set has.
        hidden: None gives a linear head. A width, or several, gives an MLP: each hidden layer is
            linear, GELU, and the same dropout before it.
        dropout: probability in front of each linear layer.
        zero_init: start the last layer's weights (and its bias, unless ``bias_init`` is given) at
            zero: every class is equally likely at first, and the first step does not send noise
            into a pre-trained backbone.
        bias_init: start of the last layer's biases. With the ``bce`` loss, log(p / (1 - p)) for a
            prior p = 1 / num_classes keeps the first steps calm (Lin et al. 2017, "Focal Loss for
            Dense Object Detection", section 3.3). None: the framework's own.
        bias: whether the last layer has biases.
        scale: factor on the logits, above 0: a small one calms the first steps without a smaller
            learning rate.

    Raises:
        FoveaError: no class, an empty hidden layer, a dropout outside [0, 1), a scale of 0 or less,
            or ``bias_init`` without biases.
    """
    widths = [hidden] if isinstance(hidden, int) else list(hidden or [])
    if num_classes < 1 or any(width < 1 for width in widths):
        raise FoveaError(
            f"A head needs at least one class and one unit a hidden layer: num_classes="
            f"{num_classes}, model.head.hidden={hidden}. A linear head: model.head.hidden=null."
        )
    if not 0 <= dropout < 1:
        raise FoveaError(f"model.head.dropout={dropout} is a probability: 0 <= dropout < 1.")
    if scale <= 0:
        raise FoveaError(f"model.head.scale={scale} must be above 0.")
    if bias_init is not None and not bias:
        raise FoveaError("model.head.bias_init is of biases, and model.head.bias=false has none.")
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Dropout(dropout), nn.Linear(num_features, width), nn.GELU()]
        num_features = width
    linear = nn.Linear(num_features, num_classes, bias=bias)
    if zero_init:
        for parameter in linear.parameters():
            nn.init.zeros_(parameter)
    if bias_init is not None:
        nn.init.constant_(linear.bias, bias_init)
    return Head(nn.Sequential(*layers), nn.Dropout(dropout), linear, scale)
