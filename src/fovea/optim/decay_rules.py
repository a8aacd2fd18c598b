"""Which parameters weight decay applies to: the rules that published recipes follow."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fovea.errors import FoveaError, did_you_mean
from fovea.optim.param_groups import Decays, decays

NoDecay = Literal["norms_and_biases", "norms", "nothing"] | Sequence[str]

_RULES = ("norms_and_biases", "norms", "nothing")
_NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)


def decay_rule(module: nn.Module, no_decay: NoDecay, no_decay_names: Collection[str]) -> Decays:
    """Return which parameters of ``module`` decay.

    Args:
        module: whose parameters will be asked for, by their names in it.
        no_decay: what does not decay. ``norms_and_biases``: those, all other 1-d values, and
            ``no_decay_names`` (timm, DeiT, big_vision). ``norms``: the parameters of norm layers
            alone (torchvision's ``--norm-weight-decay 0``, ``ops.misc``'s norm classes).
            ``nothing``: all decay, as with an optimiser that is given ``model.parameters()``
            (torchvision's recipes of 2016-2020). A list: parameters whose names match one of these
            patterns of `fnmatch`.
        no_decay_names: position embeddings and the like.

    Raises:
        FoveaError: none of these, or a pattern that matches no parameter.
    """
    if no_decay == "norms_and_biases":
        return lambda name, parameter: decays(name, parameter, no_decay_names)
    if no_decay == "nothing":
        return lambda name, parameter: True
    if no_decay == "norms":
        spared = norm_parameters(module)
    elif isinstance(no_decay, str):
        raise FoveaError(
            f"task.no_decay={no_decay} is none of {', '.join(_RULES)}, nor a list of patterns."
            f"{did_you_mean(no_decay, _RULES)}"
        )
    else:
        spared = _matching(module, no_decay)
    return lambda name, parameter: name not in spared


def norm_parameters(module: nn.Module) -> set[str]:
    """Return the names of all parameters that belong to a norm layer in ``module``."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, part in module.named_modules()
        if isinstance(part, _NORMS)
        for name, _ in part.named_parameters(recurse=False)
    }


def _matching(module: nn.Module, patterns: Sequence[str]) -> set[str]:
    names = [name for name, _ in module.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            raise FoveaError(
                f"task.no_decay: '{pattern}' matches no parameter. They are called like {names[0]} "
                f"and {names[-1]}."
            )
        found |= matches
    return found
