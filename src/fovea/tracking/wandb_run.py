"""Logging to W&B that never stops a training."""

from __future__ import annotations

import logging
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment
from lightning.pytorch.utilities import rank_zero_only

from fovea.tracking.wandb_access import Mode, wandb_mode

logger = logging.getLogger(__name__)

INIT_TIMEOUT_S = 10
"""How long a server that answers may take to register the run; wandb itself would wait 90 s."""

FINISH_TIMEOUT_S = 120
"""How long the end of a run waits for uploads; wandb itself would wait for ever."""


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
) -> WandbRun:
    """Return a Lightning logger for one W&B run, which starts when something is first logged.

    Args:
        save_dir: folder that gets a ``wandb`` folder; that of the run.
        project: of W&B; made by the server when it does not exist.
        name: shown in W&B; None lets it make one up.
        group: under which W&B shows several runs together; a sweep, for instance.
        tags: for finding runs again.
        run_id: unique in the project; the same id continues a run. Characters W&B refuses become
            ``-``. None lets W&B make one up.
        entity: user or team; None takes the default one of the account.
        config: plain values, nested as they like: the run's config and its environment record.
        mode: ``auto`` is what `wandb_mode` finds.
        timeout_s: for `wandb_mode`.
    """
    return WandbRun(
        save_dir=str(save_dir),
        mode_of=lambda: wandb_mode(timeout_s) if mode == "auto" else mode,
        project=project,
        name=name,
        group=group,
        tags=list(tags),
        id=None if run_id is None else re.sub(r"[^\w.-]", "-", run_id)[:128],
        entity=entity,
        config=dict(config or {}),
    )


class WandbRun(WandbLogger):
    """Lightning's logger, with every call to W&B guarded: an error is named once, then W&B is off.

    Where the server refuses or does not answer, the run is logged offline instead. Only rank zero
    starts a run.

    Args:
        save_dir: folder that gets a ``wandb`` folder.
        mode_of: called on rank zero when the run starts.
        init: arguments of ``wandb.init``.
    """

    _experiment: Any

    def __init__(self, save_dir: str, mode_of: Callable[[], Mode], **init: Any) -> None:
        super().__init__(save_dir=save_dir, **init)
        self.mode_of = mode_of
        self.mode: Mode | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at the first use; a disabled stand-in if W&B failed."""
        if self._experiment is None:
            self._experiment = self._start()
        return self._experiment

    @property
    def url(self) -> str | None:
        """Where the run is seen, None if it is not online."""
        return getattr(self._experiment, "url", None) if self.mode == "online" else None

    @property
    def sync_command(self) -> str | None:
        """What uploads an offline run later, None for any other."""
        if self.mode != "offline":
            return None
        return f"wandb sync {Path(self._experiment.dir).parent}"

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Add to the run's config; before the run has started this does not start it."""
        if self._experiment is None:
            plain = params if isinstance(params, Mapping) else vars(params)
            self._wandb_init["config"] = {**self._wandb_init["config"], **plain}
            return
        with self._guarded():
            super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the curves, at optimiser step ``step``."""
        with self._guarded():
            super().log_metrics(dict(metrics), step)

    @rank_zero_only
    def log_image(
        self, key: str, images: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Add pictures under ``key``: paths of files, arrays or tensors."""
        with self._guarded():
            super().log_image(key, images, step, **kwargs)

    @rank_zero_only
    def finish(self, summary: Mapping[str, Any], exit_code: int = 0) -> None:
        """Write the final numbers and close the run; an exit code other than 0 marks it failed.

        A run that is not closed is closed by wandb when the process ends.
        """
        if self._experiment is None:
            return
        with self._guarded():
            self._experiment.summary.update(dict(summary))
            self._experiment.finish(exit_code=exit_code)

    def _start(self) -> Any:
        import wandb

        folder = Path(self._wandb_init["dir"])
        folder.mkdir(parents=True, exist_ok=True)
        _redirect_unwritable_folders(folder / "wandb")
        # At exit wandb sends reports of its own errors, and waits for a server that hangs.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        for mode in dict.fromkeys((self._wanted_mode(), "offline")):
            try:
                run = self._init(mode)
            except Exception as error:  # whatever W&B raises, the training goes on
                logger.warning("W&B: could not start %s: %s", mode, _first_line(error))
                with suppress(Exception):
                    wandb.teardown()  # else the run's id counts as taken
            else:
                self.mode = mode
                run.define_metric("trainer/global_step")
                run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
                return run
        self.mode = "disabled"
        return DummyExperiment()

    def _wanted_mode(self) -> Mode:
        try:
            return self.mode_of()
        except Exception as error:  # a WANDB_* variable that wandb cannot read, for instance
            logger.warning("W&B: could not read its settings: %s", _first_line(error))
            return "offline"

    def _init(self, mode: Mode) -> Any:
        import wandb

        wanted: dict[str, Any] = {
            "quiet": True,
            "silent": mode != "online",
            "init_timeout": INIT_TIMEOUT_S,
            "finish_timeout": FINISH_TIMEOUT_S,
            "login_timeout": 1,  # if it should ask after all, nobody has to answer
            "reinit": "finish_previous",
        }
        known = {key: value for key, value in wanted.items() if key in wandb.Settings.model_fields}
        resume = "allow" if mode == "online" else None  # offline it only makes wandb complain
        init = {**self._wandb_init, "mode": mode, "resume": resume}
        init.pop("anonymous", None)  # Lightning passes what wandb no longer knows
        return wandb.init(**init, settings=wandb.Settings(**known))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn an error of W&B into one warning and a disabled run."""
        try:
            yield
        except Exception as error:
            if self.mode != "disabled":
                logger.warning("W&B: failed and is off from here on: %s", _first_line(error))
            self.mode = "disabled"
            self._experiment = DummyExperiment()


def _redirect_unwritable_folders(folder: Path) -> None:
    """Point W&B's cache, data and config folders into the run where the home is not writable."""
    places = {
        "WANDB_CACHE_DIR": os.environ.get("XDG_CACHE_HOME", "~/.cache"),
        "WANDB_DATA_DIR": os.environ.get("XDG_DATA_HOME", "~/.local/share"),
        "WANDB_CONFIG_DIR": os.environ.get("XDG_CONFIG_HOME", "~/.config"),
    }
    for variable, place in places.items():
        if variable not in os.environ and not _writable(Path(place).expanduser()):
            os.environ[variable] = str(folder / variable.split("_")[1].lower())


def _writable(folder: Path) -> bool:
    """Return whether ``folder`` is, or could be made, a folder one may write to."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK)
    return False


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
