"""Going on with a run: its own configuration, with what may be changed on top."""

from __future__ import annotations

import logging

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from fovea.errors import FoveaError
from fovea.optim import FreezeSchedule

log = logging.getLogger("fovea")

# What may differ from the run that is gone on with. Anything else would no longer fit the saved
# state (weights, optimiser, position in the data) or would quietly make it another experiment.
_CHANGEABLE = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "logger",
    "callbacks.early_stopping",
    "data.root",
    "data.num_workers",
    "data.eval_batch_size",
    "data.on_bad_image",
    "paths",
    "tags",
    "test",
)
# Of another choice of the group `trainer`, only where the run runs: not how long it is.
_PLACE = ("accelerator", "devices", "num_nodes", "strategy")


def merge(cfg: DictConfig, saved: DictConfig, overrides: list[str]) -> DictConfig:
    """Return the ``saved`` configuration of a run with today's ``overrides`` put on top.

    A longer ``trainer.max_epochs`` stretches the learning-rate schedule; the phases of the freeze
    schedule stay at the epochs where they were, so that nothing is frozen again.

    Args:
        cfg: what today's command composes to; the values of ``overrides`` are read from it.
        saved: config.yaml of the run.
        overrides: what was typed, ``resume=`` included.

    Raises:
        FoveaError: an override that does not fit the saved state; names all of them.
    """
    merged = saved.copy()
    keys = [str(o.key_or_group) for o in OverridesParser.create().parse_overrides(overrides)]
    keys = [
        k for key in keys for k in ([f"trainer.{p}" for p in _PLACE] * (key == "trainer") or [key])
    ]
    refused = []
    for key in keys:
        if key in {"resume", "run_id"}:
            continue
        new, old = OmegaConf.select(cfg, key), OmegaConf.select(merged, key)
        if key in {"experiment", "debug"}:
            refused.append(f"{key} (a preset would change the run as a whole)")
        elif new != old and not key.startswith(_CHANGEABLE):
            refused.append(f"{key} (the run has {_short(old)})")
        elif new != old:
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
        _keep_phases(merged, saved.trainer.max_epochs)
        merged.resume = cfg.resume
        merged.paths = cfg.paths
        merged.run_id = cfg.run_id
    return merged


def _keep_phases(cfg: DictConfig, old_epochs: int) -> None:
    """Write the phases of the freeze schedule in epochs where they are shares of ``old_epochs``."""
    phases = OmegaConf.to_container(cfg.freeze.phases)
    assert isinstance(phases, list)
    for phase, start in zip(phases, FreezeSchedule(phases).starts(old_epochs), strict=True):
        phase["epoch"] = start
    cfg.freeze.phases = phases


def _short(value: object) -> str:
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
