"""How a training run ends before its last step, and what is closed behind it."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from lightning import Trainer
from omegaconf import DictConfig

from fovea import console, run_folder
from fovea.checkpoints.schedule import Stopped
from fovea.experiment import Experiment
from fovea.machine import devices, ranks
from fovea.machine.no_room import spared
from fovea.machine.signals import STOP
from fovea.tracking import WandbRun, last_values

log = logging.getLogger("fovea")


def ended_early(folder: Path, trainer: Trainer, error: BaseException, began: float) -> None:
    """Record the state, name the command that goes on from the last checkpoint, end the ranks.

    Lightning turns a KeyboardInterrupt into SystemExit after it has closed loggers and ranks.
    """
    if not devices.is_main_process():
        if isinstance(error, Stopped):
            sys.exit(ranks.status_of_another(trainer, STOP.status))
        return
    close_wandb(trainer, {}, exit_code=1)
    # A loop that was about to begin fails in Lightning's own clearing up, and hides the signal.
    stops = SystemExit | KeyboardInterrupt
    interrupted = isinstance(error, stops) or isinstance(error.__context__, stops)
    state = "interrupted" if interrupted else "failed"
    reason = None if interrupted else str(error)
    with spared("summary.json", folder):
        run_folder.write_summary(
            folder, state=state, seconds=time.monotonic() - began, error=reason
        )
    if run_folder.has_checkpoint(folder):
        again = console.command("train", console.given("resume", folder))
        log.info("%s. To go on: %s", state, again)
    else:
        log.info("%s before the first checkpoint.", state)
    if interrupted:
        ranks.wait_for_others(trainer)
        sys.exit(STOP.status)


def close_wandb(trainer: Trainer, summary: dict[str, float | None], exit_code: int = 0) -> None:
    """End the W&B run and say where it is to be seen; Lightning leaves it open."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbRun):
            logger.finish({k: v for k, v in summary.items() if v is not None}, exit_code)
            if where := logger.url or logger.sync_command:
                console.print_rows([("W&B", where)])


def give_up(cfg: DictConfig, experiment: Experiment, began: float) -> float | None:
    """Close a trial that its sweep has pruned: what it reached is kept, no more is computed."""
    folder = Path(cfg.paths.run)
    metrics = last_values(folder / "metrics.csv")
    score = getattr(experiment.trainer.checkpoint_callback, "best_model_score", None)
    objective = None if score is None else float(score)
    if devices.is_main_process():
        with spared("summary.json", folder):
            run_folder.write_summary(
                folder,
                state="pruned",
                seconds=time.monotonic() - began,
                monitor=cfg.monitor.metric,
                objective=objective,
                metrics=metrics,
                epochs=experiment.trainer.current_epoch,
            )
        log.info("\npruned: others of this sweep are better at the same epoch")
        close_wandb(experiment.trainer, {cfg.monitor.metric: objective, **metrics})
    return objective
