"""The face every backbone shows to tasks, freeze schedules and weight loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from fovea.errors import FoveaError
from fovea.models.stages import check_stages


class Backbone(nn.Module):
    """Images (B, C, H, W) float, normalised -> pooled features (B, F).

    A backbone of one's own subclasses this: build the network, say what its stages are, and, where
    ``net(images)`` is not already (B, F), override `forward`.

    Attributes:
        net: the network itself. Its own parameter names are those of its published weights.
        num_features: F.
        stages: name -> prefixes of parameter and buffer names, stem first, last block last. Each
            parameter and buffer of the backbone belongs to exactly one stage; a name belongs to a
            prefix if it equals it or goes on with a dot.
        name: the library's name of the network.
        library: "torchvision", "timm", or what a backbone of one's own calls itself.
        in_channels: C.
        image_size: H = W that the network was built for.
        first_convs: names in ``net`` of the convolutions that see the image.
        classifier: name that the final linear layer, which the backbone leaves out, has in
            published weights. None if there is none.
        initial_images: how many training images `initialize` is to see; 0: none are needed.
    """

    initial_images: int = 0

    def __init__(
        self,
        net: nn.Module,
        *,
        num_features: int,
        stages: Mapping[str, Sequence[str]],
        name: str,
        library: str = "own",
        in_channels: int = 3,
        image_size: int = 224,
        first_convs: Sequence[str] = (),
        classifier: str | None = None,
        no_weight_decay: Sequence[str] = (),
    ) -> None:
        """Wrap ``net``; the arguments are the attributes of the class, and ``no_weight_decay``.

        That one holds names in ``net`` of parameters that are not to decay although they are
        neither biases nor one-dimensional (position embeddings, class tokens, layer scales).

        Raises:
            FoveaError: the stages do not cover every parameter and buffer exactly once.
        """
        super().__init__()
        self.net = net
        self.num_features = num_features
        self.stages = {stage: list(prefixes) for stage, prefixes in stages.items()}
        self.name = name
        self.library = library
        self.in_channels = in_channels
        self.image_size = image_size
        self.first_convs = tuple(first_convs)
        self.classifier = classifier
        self._no_weight_decay = frozenset(f"net.{name}" for name in no_weight_decay)
        names = [name for name, _ in [*self.named_parameters(), *self.named_buffers()]]
        check_stages(self.stages, names, of=name)

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features (B, F) of ``images`` (B, C, H, W)."""
        features: Tensor = self.net(images)
        return features

    def forward_features(self, images: Tensor) -> Tensor:
        """Return what stands before pooling.

        A map (B, F', h, w) for convolutional networks; tokens (B, L, F'), class token and the like
        first, for plain transformers. timm's hierarchical transformers (Swin and kin) give
        (B, h, w, F').
        """
        raise FoveaError(
            f"Backbone '{self.name}' has no feature map: its class {type(self).__name__} does not "
            "define forward_features(images)."
        )

    def no_weight_decay(self) -> set[str]:
        """Return names, as `named_parameters` gives them, of parameters that must not decay.

        Biases, norms and other one-dimensional parameters need no mention here.
        """
        return set(self._no_weight_decay)

    def initialize(self, batches: Iterable[Tensor]) -> str:
        """Set what depends on the training images, once, before a run from random weights.

        Args:
            batches: of `initial_images` images altogether, (B, C, H, W) float, normalised.

        Returns:
            in words what the weights are now, for the summary of a run.
        """
        raise NotImplementedError

    def convert_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` in the names and layout of ``net`` if it comes in an older format."""
        return state
