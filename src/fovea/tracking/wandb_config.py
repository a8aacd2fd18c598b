"""From the values of ``conf/logger/wandb.yaml`` to a logger; what W&B would refuse is told now."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fovea.errors import FoveaError
from fovea.tracking.wandb_access import Mode, wandb_mode
from fovea.tracking.wandb_run import WandbRun

logger = logging.getLogger(__name__)

_LONGEST_NAME = 128
_LONGEST_TAG = 64


def wandb_logger(
    save_dir: Path | str,
    project: str = "fovea",
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    run_id: str | None = None,
    entity: str | None = None,
    config: Mapping[str, Any] | None = None,
    mode: Literal["auto"] | Mode = "auto",
    timeout_s: float = 3.0,
    finish_timeout_s: float = 30.0,
) -> WandbRun:
    """Return a Lightning logger for one W&B run, which starts when something is first logged.

    Args:
        save_dir: folder that gets a ``wandb`` folder; that of the run.
        project: of W&B; made by the server when it does not exist.
        name: shown in W&B; None lets it make one up.
        group: under which W&B shows several runs together; a sweep, for instance.
        tags: for finding runs again.
        run_id: unique in the project; the same id continues a run. Characters W&B refuses become
            ``-``. None lets W&B make one up. Under an agent of a W&B sweep it is that of the agent.
        entity: user or team; None takes the default one of the account.
        config: plain values, nested as they like: the run's config and its environment record.
        mode: ``auto`` is what `wandb_mode` finds.
        timeout_s: for `wandb_mode`.
        finish_timeout_s: how long the end of a run waits for uploads, in seconds.

    Raises:
        FoveaError: names that W&B would refuse.
    """
    check_names(project, entity, tags)
    if mode in ("auto", "online"):
        check_key()
    if "WANDB_SWEEP_ID" in os.environ:  # the agent that started this has named the run
        run_id, entity = os.environ.get("WANDB_RUN_ID"), None
    return WandbRun(
        save_dir=str(save_dir),
        mode_of=lambda: wandb_mode(timeout_s) if mode == "auto" else mode,
        finish_timeout_s=finish_timeout_s,
        project=project,
        name=name,
        group=group,
        tags=list(tags),
        id=None if run_id is None else re.sub(r"[^\w.-]", "-", run_id)[:128],
        entity=entity,
        config=dict(config or {}),
    )


def check_names(project: str, entity: str | None, tags: Sequence[str]) -> None:
    """Raise `FoveaError` for names that W&B would refuse when the run starts."""
    for key, name in {"project": project, "entity": entity}.items():
        if name is None or (re.fullmatch(r"[^/\\#?%:]*", name) and len(name) <= _LONGEST_NAME):
            continue
        raise FoveaError(
            f"logger.wandb.{key}={name}: W&B takes up to {_LONGEST_NAME} characters, none of them "
            f"/ \\ # ? % or :. Choose another: logger.wandb.{key}=my-{key}"
        )
    for tag in tags:
        if not 1 <= len(tag) <= _LONGEST_TAG:
            raise FoveaError(
                f"tags=[{tag}]: W&B takes tags of 1 to {_LONGEST_TAG} characters. Shorten it, or "
                "log without W&B: logger=csv"
            )


def check_key() -> None:
    """Warn of a ``WANDB_API_KEY`` that cannot be one, before the run counts on it."""
    from wandb.sdk.lib.wbauth import validation

    key = os.environ.get("WANDB_API_KEY")
    problem = validation.check_api_key(key) if key else None
    if problem:
        logger.warning(
            "W&B: WANDB_API_KEY cannot be a key (%s), so this run will be logged offline. Mend it, "
            "or unset it: `wandb login` says where to find yours.",
            problem.rstrip("."),
        )
