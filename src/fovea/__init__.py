"""Fovea: train, transfer, evaluate and compare image classifiers by composing YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovea.experiment import compose
    from fovea.inference import load

__version__ = "0.1.0"
__all__ = ["__version__", "compose", "load"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line must answer a typo without waiting for torch."""
    if name == "load":
        from fovea.inference import load

        return load
    if name == "compose":
        from fovea.experiment import compose

        return compose
    raise AttributeError(f"module 'fovea' has no attribute '{name}'")
