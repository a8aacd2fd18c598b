"""Inside a trial: each validation is reported to the study, which may end the trial for it."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from optuna.trial import Trial

from fovea.sweeps.study import open_study

log = logging.getLogger("fovea")


class Pruning(Callback):
    """Reports a metric after each validation, and stops the run when the study gives it up.

    Rank 0 alone talks to the study; all ranks stop together, at the end of the validation.

    Args:
        study: folder of the sweep.
        trial: number of the trial in the study.
        monitor: metric to report.
        report: whether to report at all: not for a second seed, nor where the study goes by
            something else than ``monitor``.

    Attributes:
        pruned: whether the study has given this run up.
    """

    def __init__(self, study: str, trial: int, monitor: str, report: bool = True) -> None:
        self.folder = Path(study)
        self.number = trial
        self.monitor = monitor
        self.report = report
        self.pruned = False
        self._trial: Trial | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and stop on all ranks if the study says so."""
        if not self.report or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        hopeless = trainer.is_global_zero and self._hopeless(trainer)
        if trainer.strategy.broadcast(hopeless, src=0):
            self.pruned = True
            trainer.should_stop = True

    def _hopeless(self, trainer: Trainer) -> bool:
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            return False
        epoch = trainer.current_epoch + 1
        try:
            if self._trial is None:
                study = open_study(self.folder)
                stored = study.get_trials(deepcopy=False)[self.number]
                self._trial = Trial(study, stored._trial_id)
            # After a resume this epoch may have been reported already, with the same value.
            if epoch not in self._trial._cached_frozen_trial.intermediate_values:
                self._trial.report(float(value), epoch)
            return self._trial.should_prune()
        except OSError as error:  # no room, no network: the training is worth more than a report
            log.warning("The study in %s can't be reached: %s", self.folder, error)
            return False
