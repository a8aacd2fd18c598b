"""Recipes as documents: what they promise, what a run of them changed, and what was reached."""

from fovea.recipes.departures import (
    Built,
    batch_of_a_device,
    departures,
    document_rows,
    unlike_variant,
)
from fovea.recipes.overrides import changed, matters

__all__ = [
    "Built",
    "batch_of_a_device",
    "changed",
    "departures",
    "document_rows",
    "matters",
    "unlike_variant",
]
