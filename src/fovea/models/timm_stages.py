"""Stages of timm's networks, from timm's own grouping of their layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models._manipulate import group_with_matcher
from torch import nn

from fovea.models.stages import belongs, minimal_prefixes, name_groups


def timm_stages(net: Any) -> dict[str, list[str]]:
    """Return stage -> prefixes, relative to a backbone that holds ``net`` as ``net``."""
    parameters = [name for name, _ in net.named_parameters()]
    tops = {name.split(".")[0] for name in parameters}
    buffers = [name for name, _ in net.named_buffers()]
    lonely = [name for name in buffers if name.split(".")[0] not in tops]  # tables, such as rope's
    groups = _grouped(net, [*parameters, *(name for name in buffers if name not in lonely)])
    named = name_groups([[*lonely, *groups[0]], *groups[1:]])
    prefixes = minimal_prefixes(named)
    return {stage: [f"net.{p}" for p in prefixes[stage]] for stage in named}


def _grouped(net: Any, names: list[str]) -> list[list[str]]:
    """Return ``names`` in groups from stem to last, by timm's matcher for this network.

    The few networks that have none, or none as coarse as this, are grouped by layer or child.
    """
    if not hasattr(net, "group_matcher"):
        matcher = _by_child(net)
    else:
        try:
            matcher = net.group_matcher(coarse=True)
        except AssertionError:
            matcher = net.group_matcher(coarse=False)
    groups = group_with_matcher(((name, None) for name in names), matcher)
    return [groups[i] for i in sorted(groups)]


def _by_child(net: nn.Module) -> Callable[[str], int]:
    """Return parameter name -> position of the child, or grandchild in a list, that holds it."""
    units = []
    for name, child in net.named_children():
        listed = isinstance(child, nn.Sequential | nn.ModuleList)
        units += [f"{name}.{i}" for i, _ in child.named_children()] if listed else [name]
    full = [unit for unit in units if list(net.get_submodule(unit).parameters())]
    return lambda name: next((i for i, unit in enumerate(full) if belongs(name, unit)), 0)
