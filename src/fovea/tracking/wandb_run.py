"""Logging to W&B that never stops a training."""

from __future__ import annotations

import logging
import math
import shlex
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment
from lightning.pytorch.utilities import rank_zero_only

from fovea.tracking.metrics_csv import read_rows
from fovea.tracking.wandb_access import Mode
from fovea.tracking.wandb_files import UploadLog, as_number, mend, next_step, unsynced
from fovea.tracking.wandb_start import first_line, prepare_folder, start_run, stop_run

logger = logging.getLogger(__name__)

LOOK_EVERY_S, SILENCE_S = 10.0, 60.0
"""How often W&B's own log is looked at, and how long the server may owe an answer untold."""


class WandbRun(WandbLogger):
    """Lightning's logger, which W&B cannot stop, and whose rows come once each.

    Where the server refuses or does not answer, or W&B's own process dies, the run goes on offline,
    once; after a second failure W&B is off. The optimiser step is W&B's step, so a run that goes on
    knows what is logged already, and takes what is missing from ``metrics.csv`` in ``save_dir``.
    Only rank zero starts a run.

    Args:
        save_dir: folder that gets a ``wandb`` folder.
        mode_of: called on rank zero when the run starts.
        finish_timeout_s: how long the end waits for uploads.
        init: arguments of ``wandb.init``.
    """

    _experiment: Any

    def __init__(
        self, save_dir: str, mode_of: Callable[[], Mode], finish_timeout_s: float, **init: Any
    ) -> None:
        super().__init__(save_dir=save_dir, **init)
        self.mode_of = mode_of
        self.mode: Mode | None = None
        self._finish_timeout_s = finish_timeout_s
        self._folder = Path(save_dir)
        self._part = self._folder
        self._url: str | None = None
        self._uploads: UploadLog | None = None
        self._looked = 0.0
        self._said = False
        self._failures = 0
        self._next = 0  # earlier steps are logged
        self._complete = False  # all steps of metrics.csv before the one at hand are logged
        self._shown: list[Callable[[], None]] = []
        self._shown_again: list[Callable[[], None]] = []

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started at the first use; a disabled stand-in if W&B failed."""
        if self._experiment is None:
            prepare_folder(self._folder / "wandb")
            self._start(self._wanted_mode(), "offline")
        return self._experiment

    @property
    def url(self) -> str | None:
        """Where the run is seen, None if it is not online."""
        return self._url if self.mode == "online" else None

    @property
    def sync_command(self) -> str | None:
        """What uploads an offline run later, None for any other."""
        if self.mode != "offline":
            return None
        earlier = unsynced(self._folder / "wandb", str(self._id))
        waiting = dict.fromkeys([*earlier, self._part])
        return f"wandb sync {shlex.join(map(str, waiting))}"

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
        """Add a point to the curves, at optimiser step ``step``; a step logged before is left."""
        with self._guarded():
            run = self.experiment
            if step is None:  # as part of the last row: a row of its own would take the next step
                run.log(dict(metrics), step=self._next)
                return
            self._catch_up(step)
            self._log(run, metrics, step)
            self._look_after_uploads()

    @rank_zero_only
    def log_image(
        self, key: str, images: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Add pictures under ``key``: paths of files, arrays or tensors."""
        if all(isinstance(image, str) for image in images):  # files, which cost no memory
            self._shown.append(partial(super().log_image, key, images, **kwargs))
        with self._guarded():
            super().log_image(key, images, step, **kwargs)

    @rank_zero_only
    def log_table(self, key: str, *args: Any, **kwargs: Any) -> None:
        """Add a table under ``key``: columns and data, or a data frame."""
        self._shown.append(partial(super().log_table, key, *args, **kwargs))
        with self._guarded():
            self._shown[-1]()

    @rank_zero_only
    def finish(self, summary: Mapping[str, Any], exit_code: int = 0) -> None:
        """Write the final numbers and close the run; an exit code other than 0 marks it failed."""
        if self._experiment is None:
            return
        for _ in range(2):  # once more where that was when the run had to go offline
            with self._guarded():
                self._close(summary, exit_code)
                return

    def _close(self, summary: Mapping[str, Any], exit_code: int) -> None:
        self._catch_up(math.inf)
        for show in self._shown_again:
            show()
        self._experiment.summary.update(dict(summary))
        self._experiment.finish(exit_code=exit_code)
        if self._uploads is not None:
            self._uploads.update()
            if problem := self._uploads.refused or self._uploads.unsaved:
                raise ConnectionError(problem)

    def _start(self, *modes: Mode) -> None:
        """Start the run in the first of ``modes`` that works."""
        self.mode, self._experiment, self._uploads = "disabled", DummyExperiment(), None
        with suppress(OSError):
            mend(self._folder / "wandb", str(self._id))
        for mode in dict.fromkeys(modes):
            run = start_run(self._wandb_init, mode, self._finish_timeout_s)
            if run is None:
                continue
            self.mode, self._experiment, self._id = mode, run, run.id
            self._part = Path(run.dir).parent
            self._uploads = UploadLog(self._part)
            if mode == "online":
                self._url, self._next = run.url, run.step
            else:
                self._next = next_step(self._folder / "wandb", run.id)
            self._complete = False
            return

    def _wanted_mode(self) -> Mode:
        try:
            mode = self.mode_of()
        except Exception as error:  # a WANDB_* variable that wandb cannot read, for instance
            logger.warning("W&B: could not read its settings: %s", first_line(error))
            return "offline"
        if mode == "online" and unsynced(self._folder / "wandb", str(self._id)):
            logger.warning(
                "W&B: an earlier part of this run waits for `wandb sync`, so this part is logged "
                "offline, too."
            )
            return "offline"
        return mode

    def _catch_up(self, step: float) -> None:
        """Log the rows of ``metrics.csv`` up to ``step`` that neither server nor files have."""
        if self._complete:
            return
        self._complete = True
        for row in read_rows(self._folder / "metrics.csv"):
            at = int(row.pop("step"))
            if self._next <= at <= step:
                self._log(self._experiment, {name: as_number(row[name]) for name in row}, at)

    def _log(self, run: Any, metrics: Mapping[str, float], step: int) -> None:
        if step >= self._next:
            self._next = step
            run.log({**metrics, "trainer/global_step": step}, step=step)

    def _look_after_uploads(self) -> None:
        now = time.monotonic()
        if self._uploads is None or now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        self._uploads.update()
        if self._uploads.refused:
            raise ConnectionError(self._uploads.refused)
        if self._uploads.unsaved and not self._said:
            self._said = True
            logger.warning(
                "W&B: its files in %s can't be written: %s. Training goes on; if there is room at "
                "the end, what is missing is written then.",
                *(self._part, self._uploads.unsaved),
            )
        if self._uploads.silent_s() > SILENCE_S and not self._said:
            self._said = True
            why = f" ({self._uploads.trouble})" if self._uploads.trouble else ""
            logger.warning(
                "W&B: the server has taken nothing for %.0f s%s. Training goes on, W&B keeps "
                "trying, and what it cannot send until the end is kept for `wandb sync`.",
                *(self._uploads.silent_s(), why),
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn an error of W&B into one warning, and into a run that goes on without its server."""
        try:
            yield
        except (FileNotFoundError, TypeError, ValueError) as error:  # of what was to be logged
            if not isinstance(self._experiment, DummyExperiment):
                logger.warning("W&B: could not log: %s", first_line(error))
        except Exception as error:
            self._fail(first_line(error))

    def _fail(self, reason: str) -> None:
        self._failures += 1
        broken, self._experiment = self._experiment, DummyExperiment()
        if self.mode == "disabled":
            return
        stop_run(broken)
        self.mode = "disabled"
        if self._failures == 1:
            self._start("offline")
        if self.mode == "disabled":
            logger.warning("W&B: failed and is off from here on: %s", reason)
            return
        self._shown_again = list(self._shown)
        how = self.sync_command
        logger.warning("W&B: %s. The run goes on offline; to upload it later: %s", reason, how)
