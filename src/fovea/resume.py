"""Going on with a run: its own configuration, with what may be changed on top."""

from __future__ import annotations

import logging

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from fovea.errors import FoveaError

log = logging.getLogger("fovea")

# What may differ from the run that is gone on with. Anything else would no longer fit the saved
# state (weights, optimiser, position in the data) or would quietly make it another experiment.
_CHANGEABLE = (
    "trainer",
    "logger",
    "callbacks.early_stopping",
    "data.root",
    "data.num_workers",
    "data.on_bad_image",
    "monitor",
    "paths",
    "tags",
    "test",
    "debug",
)
_FIXED = ("trainer.precision", "trainer.limit_train_batches", "trainer.check_val_every_n_epoch")


def merge(cfg: DictConfig, saved: DictConfig, overrides: list[str]) -> DictConfig:
    """Return the ``saved`` configuration of a run with today's ``overrides`` put on top.

    Args:
        cfg: what today's command composes to; the values of ``overrides`` are read from it.
        saved: config.yaml of the run.
        overrides: what was typed, ``resume=`` included.

    Raises:
        FoveaError: an override that does not fit the saved state; names all of them.
    """
    merged = saved.copy()
    refused = []
    keys = [str(o.key_or_group) for o in OverridesParser.create().parse_overrides(overrides)]
    for key in keys:
        if key in {"resume", "run_id"}:
            continue
        new = OmegaConf.select(cfg, key)
        old = OmegaConf.select(merged, key)
        allowed = key.startswith(_CHANGEABLE) and not key.startswith(_FIXED)
        if not allowed and new != old:
            refused.append(f"{key} (the run has {_short(old)})")
            continue
        if new != old:
            log.info("resume: %s: %s -> %s", key, _short(old), _short(new))
        with open_dict(merged):
            OmegaConf.update(merged, key, new, merge=False, force_add=True)
    if refused:
        raise FoveaError(
            f"resume={cfg.resume}: these would not fit the saved state: {'; '.join(refused)}.\n"
            "  Leave them out to go on, or start a new run from its weights: "
            f"model.weights={cfg.resume}"
        )
    with open_dict(merged):
        merged.resume = cfg.resume
        merged.paths = cfg.paths
        merged.run_id = cfg.run_id
    return merged


def _short(value: object) -> str:
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
