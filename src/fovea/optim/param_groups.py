"""Parameter groups: which parameters decay, and with which learning rate; names in, groups out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from fovea.optim.param_scales import UNSCALED, ParamScale

Decays = Callable[[str, nn.Parameter], bool]
"""Whether weight decay applies to a parameter, by its name and itself."""


def assign_stages(
    names: Iterable[str], prefixes: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return stage -> those of ``names`` that equal one of its prefixes or go on with a dot."""
    stages: dict[str, list[str]] = {stage: [] for stage in prefixes}
    for name in names:
        owners = [
            stage
            for stage in prefixes
            if any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes[stage])
        ]
        assert len(owners) == 1, f"parameter {name} belongs to the stages {owners}"
        stages[owners[0]].append(name)
    return stages


def decays(name: str, parameter: nn.Parameter, no_decay_names: Collection[str] = ()) -> bool:
    """Return whether weight decay applies: not to biases, norms, other 1-d values, named ones.

    Source: Goyal et al. 2017, section 5.3 (norms); Dosovitskiy et al. 2021 and the DeiT code
    (position embeddings, class tokens: ``no_decay_names``).
    """
    return parameter.ndim > 1 and not name.endswith(".bias") and name not in no_decay_names


def layer_scales(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    stages: Mapping[str, Collection[str]],
    layer_decay: float,
) -> dict[str, float]:
    """Return the learning-rate scale of every stage, ``layer_decay ** depth from the top``.

    The last stage of ``stages`` (the head) has scale 1, the one below it ``layer_decay``, and so
    on down to the stem. A stage of 1-d parameters only (the final norm of a transformer) is no
    layer of its own: it shares the scale of the stage above it.

    Source: Clark et al. 2020 (ELECTRA); the same scales as the MAE and BEiT fine-tuning code, where
    head and final norm have 1, the last block ``layer_decay`` and the patch embedding
    ``layer_decay ** (blocks + 1)``.
    """
    parameters = dict(named_parameters)
    scales: dict[str, float] = {}
    depth = -1
    for stage in reversed(list(stages)):
        if depth < 0 or any(parameters[name].ndim > 1 for name in stages[stage]):
            depth += 1
        scales[stage] = layer_decay**depth
    return dict(reversed(scales.items()))


def param_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    stages: Mapping[str, Collection[str]],
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    no_decay_names: Collection[str] = (),
    split_by: Mapping[str, Hashable] | None = None,
    decay_rule: Decays | None = None,
    param_scales: Mapping[str, ParamScale] | None = None,
) -> list[dict[str, Any]]:
    """Return the groups to build an optimiser from: every parameter in exactly one of them.

    Frozen parameters are included, so the groups are the same from the first step to the last and
    an optimiser's state fits at every point of a freeze schedule.

    Args:
        named_parameters: (name, parameter), as a module's ``named_parameters()`` gives them.
        stages: stage -> names of its parameters, stem first, head last.
        lr: base learning rate of the head.
        weight_decay: of the parameters that decay.
        layer_decay: factor on ``lr`` from one stage to the one below it; see `layer_scales`.
        no_decay_names: parameters that never decay, besides biases and 1-d ones.
        split_by: parameters with different values never share a group.
        decay_rule: decides which parameters decay, in place of `decays`; see
            `fovea.optim.decay_rule`.
        param_scales: further factors by parameter; see `fovea.optim.match_scales`.

    Returns:
        Dictionaries with ``name`` (for logs), ``params`` (list of (name, parameter)), ``lr`` and
        ``weight_decay``, in the order in which the parameters come.
    """
    parameters = dict(named_parameters)
    stage_of = {name: stage for stage, names in stages.items() for name in names}
    assert stage_of.keys() == parameters.keys(), "stages and parameters disagree"
    scales = layer_scales(parameters.items(), stages, layer_decay)
    groups: dict[tuple[float, bool, ParamScale, Hashable], dict[str, Any]] = {}
    members: dict[tuple[float, bool, ParamScale, Hashable], list[str]] = {}
    for name, parameter in parameters.items():
        stage = stage_of[name]
        if decay_rule is None:
            decayed = decays(name, parameter, no_decay_names)
        else:
            decayed = decay_rule(name, parameter)
        own = param_scales[name] if param_scales else UNSCALED
        key = (scales[stage], decayed, own, split_by[name] if split_by else None)
        if key not in groups:
            groups[key] = {
                "params": [],
                "lr": lr * scales[stage] * own.lr,
                "weight_decay": weight_decay * own.weight_decay if decayed else 0.0,
            }
        groups[key]["params"].append((name, parameter))
        members.setdefault(key, []).append(stage)
    for key, group in groups.items():
        group["name"] = _group_name(members[key], decayed=key[1], scale=key[2])
    return list(groups.values())


def _group_name(stages: Sequence[str], decayed: bool, scale: ParamScale) -> str:
    unique = list(dict.fromkeys(stages))
    span = unique[0] if len(unique) == 1 else f"{unique[0]}..{unique[-1]}"
    if scale != UNSCALED:
        span += f" (lr x{scale.lr:g}, decay x{scale.weight_decay:g})"
    return span if decayed else f"{span} (no decay)"
