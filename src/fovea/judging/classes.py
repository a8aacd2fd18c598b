"""Which output of a network belongs to which class of the data: matched by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fovea.data.imagenet import imagenet_classes
from fovea.data.layout import shortened
from fovea.errors import FoveaError, did_you_mean


class ChosenClasses(nn.Module):
    """Logits (B, K) of a network -> (B, M), those of some of its classes, in an order of their own.

    What is not chosen is ruled out: the softmax is over the M that are left.

    Args:
        columns: M numbers in [0, K).
    """

    columns: Tensor

    def __init__(self, columns: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(list(columns)), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the chosen columns of ``logits``."""
        return logits.index_select(1, self.columns)


def restrict_head(
    head: nn.Module, network: Sequence[str], data: Sequence[str], layout: str
) -> tuple[nn.Module, list[tuple[str, str]]]:
    """Return ``head`` with one output for each class of the data, in its order, and what to say.

    A network that knows more classes than the data has is judged on those of the data alone, as
    ImageNet-A and ImageNet-R are (Hendrycks et al. 2021, "Natural Adversarial Examples", section 3:
    "the 200 classes"; their published code selects the logits in the same way).

    Args:
        head: (B, F) -> (B, K).
        network: K names of its classes.
        data: M names of the data's classes.
        layout: of the data, for messages.

    Raises:
        FoveaError: as `match_classes` does.
    """
    columns = match_classes(network, data, layout)
    if columns == list(range(len(network))):
        return head, []
    chosen = nn.Sequential(head, ChosenClasses(columns))
    if len(data) == len(network):
        return chosen, [("classes", "numbered otherwise by the network; matched by name")]
    text = f"{len(data)} of the network's {len(network)}; its other outputs are left out (masked)"
    return chosen, [("classes", text)]


def match_classes(network: Sequence[str], data: Sequence[str], layout: str) -> list[int]:
    """Return for each class of the data the number of the network's class of that name.

    Of ImageNet a class may be called by its WordNet id or by its name.

    Args:
        network: K names.
        data: M names.
        layout: of the data, for messages.

    Raises:
        FoveaError: classes that the network does not know, or a name that stands for two of them.
    """
    numbers = {name: number for number, name in enumerate(network)}
    if not set(data) <= set(numbers):
        words = imagenet_classes()
        numbers = {words.get(name, name): number for name, number in numbers.items()}
        data = [words.get(name, name) for name in data]
    strange = [name for name in data if name not in numbers]
    if strange:
        raise FoveaError(
            f"The network knows {len(network)} classes ({shortened(network)}), and the data set "
            f"({layout}) has {len(strange)} of {len(data)} that are none of them: "
            f"{shortened(strange)}.{did_you_mean(strange[0], network)} Evaluate it on data with "
            "its own classes (folders called as these are; data.classes=[…] keeps some), or train "
            "a new head on this data: "
            "python src/train.py model.weights=<the checkpoint> data=…"
        )
    columns = [numbers[name] for name in data]
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in data if list(data).count(name) > 1})
        raise FoveaError(f"Two classes of the data set ({layout}) are both called {twice[0]}.")
    return columns
