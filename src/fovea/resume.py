"""Going on with a run: its own configuration, with what may be changed on top."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from fovea.auto_resume import PLACE
from fovea.errors import FoveaError
from fovea.optim import FreezeSchedule
from fovea.safety import targets

log = logging.getLogger("fovea")

# What may differ from the run that is gone on with. Anything else would no longer fit the saved
# state (weights, optimiser, position in the data) or would quietly make it another experiment.
_CHANGEABLE = (
    *PLACE,
    "trainer.max_epochs",
    "trainer.max_time",
    "callbacks.early_stopping",
    "data.root",
    "data.eval_batch_size",
    "data.on_bad_image",
    "on_nan",
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
        FoveaError: an override that does not fit the saved state; names all of them. Something in
            ``saved`` that no run leaves.
    """
    targets.check_stored(saved, f"config.yaml of resume={cfg.resume}")
    merged = saved.copy()
    keys = [str(o.key_or_group) for o in OverridesParser.create().parse_overrides(overrides)]
    keys = [
        k for key in keys for k in ([f"trainer.{p}" for p in _PLACE] * (key == "trainer") or [key])
    ]
    refused = []
    for key in dict.fromkeys(_whole(key, merged) for key in keys):
        if key in {"resume", "run_id", "allow_targets"}:
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
        if "views" not in merged:
            merged.views = "center"  # a run from before there was a choice
        merged.allow_targets = cfg.allow_targets  # never what the run's own file says
        merged.run_id = cfg.run_id
        if saved.paths.run is not None and saved.paths.run != cfg.paths.run:
            merged = OmegaConf.create(_moved(merged, str(saved.paths.run), str(cfg.paths.run)))
    _check_folders(merged, cfg)
    return merged


def _whole(key: str, merged: DictConfig) -> str:
    """Return ``callbacks.progress`` for ``callbacks.progress.refresh_s`` if the run lacks it."""
    node = ".".join(key.split(".")[:2])
    absent = node.startswith("callbacks.") and OmegaConf.select(merged, node) is None
    return node if absent else key


def _check_folders(merged: DictConfig, cfg: DictConfig) -> None:
    """Keep what the run's own file says from being written, or removed, outside its folder.

    Raises:
        FoveaError: a callback or logger that works elsewhere, unless today's command says so too.
    """
    home = Path(str(cfg.paths.run)).absolute()
    for group in ("callbacks", "logger"):
        for name, node in (merged.get(group) or {}).items():
            for key in {"dirpath", "save_dir", "root_dir"} & set(node or {}):
                where, path = f"{group}.{name}.{key}", os.path.abspath(str(node[key]))
                typed = OmegaConf.select(cfg, where)
                same = typed is not None and os.path.abspath(str(typed)) == path
                if node[key] is not None and not (same or Path(path).is_relative_to(home)):
                    raise FoveaError(
                        f"resume={cfg.resume}: its config.yaml has {where}={node[key]}, outside "
                        f"its folder. If you want that, type it too: {where}='{node[key]}'"
                    )


def news(said: list[str], overrides: list[str]) -> list[str]:
    """Return those of ``overrides`` that were not the last word on their key in ``said``."""
    last = {word.partition("=")[0]: word for word in said}
    return [w for w in overrides if last.get(w.partition("=")[0]) != w]


def together(said: list[str], overrides: list[str]) -> list[str]:
    """Return the last word on each key, in the order in which the keys came first."""
    words = [w for w in [*said, *overrides] if not w.startswith("resume=")]
    return list({word.partition("=")[0]: word for word in words}.values())


def _moved(node: Any, before: str, now: str) -> Any:
    """Return ``node`` as plain dicts and lists with all paths in folder ``before`` in ``now``."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node)
    if isinstance(node, dict):
        return {key: _moved(value, before, now) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, before, now) for value in node]
    inside = isinstance(node, str) and (node == before or node.startswith(before + os.sep))
    return now + node[len(before) :] if inside else node


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
