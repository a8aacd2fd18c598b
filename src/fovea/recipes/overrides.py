"""Which settings of a run differ from its recipe, of those that may change what it reaches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

INDIFFERENT = re.compile(
    r"(run_id|resume|group|tags|seed|test|views|compile|channels_last|allow_targets)"
    r"|(paths|logger|launcher|checkpoint|sweep|expected|debug|plan|tune|hardware)(\..*)?"
    r"|callbacks\.(best|throughput|spikes|progress|image_sheets|learning_curves)(\..*)?"
    r"|data\.(root|cache_dir|num_workers|decode|in_memory|memory_fraction|eval_batch_size|check|seed"
    r"|shuffle_window|_target_)"
    r"|task\.(seed|compile|channels_last)"
    r"|trainer\.(accelerator|devices|num_nodes|strategy|accumulate_grad_batches|log_every_n_steps"
    r"|collective_timeout|num_sanity_val_steps|deterministic|profiler)(\..*)?"
)
"""Settings that leave the optimisation what it is: places, names, loggers, launchers, checkpoints,
what is shown; what the evaluation at the end sees; workers and decoders; devices, and the number of
parts a global batch is split into; the seed, since a published number holds for any. Which images
there are is told by their number (`fovea.recipes.departures`), not by the class that reads them
(folders, or shards: `in_shards`). What tuning found stands in the setting that it found. All others
matter: model, weights, optimiser, schedule, task, freezing, augmentation, sizes, splits, epochs,
limits, precision, what is monitored, and what happens to steps that are no numbers."""

_FOUND = re.compile(
    r"data\.(classes|num_classes|official_val|val_fraction|test_fraction|split_seed)"
)
"""Settings of how images are found in folders and divided. In shards all of that is done, as the
settings had it when scripts/prepare_shards.py made them, and stored with classes and normalisation:
of a run on shards their number says whether they are the recipe's."""


def in_shards(settings: Mapping[str, Any]) -> bool:
    """Return whether a run reads images from shards.

    Args:
        settings: flat.
    """
    return str(settings.get("data._target_")).endswith(".ShardsDataModule")


def matters(key: str) -> bool:
    """Return whether the setting may change what a run reaches."""
    return INDIFFERENT.fullmatch(key) is None


def changed(recipe: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return setting -> (the recipe's value, the run's), where they differ and it matters.

    The same images in shards are no difference; whether they are the same has to be seen otherwise.

    Args:
        recipe: flat settings, as `fovea.runs.settings.flatten` gives them.
        run: those of a run. A setting that one of them lacks is None there.
    """
    keys = sorted({*recipe, *run})
    if in_shards(run) and not in_shards(recipe):
        keys = [key for key in keys if _FOUND.fullmatch(key) is None]
    pairs = {key: (recipe.get(key), run.get(key)) for key in keys if matters(key)}
    return {key: (theirs, ours) for key, (theirs, ours) in pairs.items() if not _same(theirs, ours)}


def _same(theirs: Any, ours: Any) -> bool:
    """Return whether two values are the same, text that reads as the same number included."""
    if theirs == ours or str(theirs) == str(ours):
        return True
    try:
        return float(theirs) == float(ours)
    except (TypeError, ValueError):
        return False
