"""The study on disk: which trial comes next, who runs it, and what came of it.

It is Optuna's journal, a file that lines are appended to, and not SQLite: several processes and
machines may write to it on a shared folder, where SQLite's locks are not to be trusted, and a line
is either there or not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fovea import run_lock
from fovea.sweeps import locks
from fovea.sweeps.outcomes import Outcome
from fovea.sweeps.sampling import Settings, make_pruner, make_sampler

JOURNAL = "study.journal"
_NAME = "sweep"
_MAX_KILLS = 3  # of one trial, before it counts as failed: most likely it needs too much memory

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass
class Claim:
    """A trial that this process runs; the lock says so to others."""

    trial: Trial
    lock: FileLock

    @property
    def number(self) -> int:
        """The trial's number, from 0."""
        return self.trial.number


def storage(folder: Path) -> JournalStorage:
    """Return the journal of the sweep in ``folder``, made if there is none."""
    journal = folder / JOURNAL
    folder.mkdir(parents=True, exist_ok=True)
    journal.touch()
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=locks.JournalLock(journal)))


def open_study(folder: Path) -> optuna.Study:
    """Return the study in ``folder``, with its pruner, for a trial that reports to it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=_NAME, storage=storage(folder), sampler=optuna.samplers.RandomSampler()
    )
    study.pruner = make_pruner(Settings(**study.user_attrs["settings"]))
    return study


class Trials:
    """The trials of the sweep in ``folder``, shared with all other workers.

    Args:
        folder: of the sweep.
        settings: the same for all workers, the number of trials aside: the last one holds.
        runs: the run folders of a trial.
    """

    def __init__(self, folder: Path, settings: Settings, runs: Callable[[int], list[Path]]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.folder = folder
        self.settings = settings
        self.runs = runs
        words = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
        directions = [words[mode] for mode in settings.objectives.values()]
        with locks.study_lock(folder):
            self.study = optuna.create_study(
                study_name=_NAME,
                storage=storage(folder),
                directions=directions,
                pruner=make_pruner(settings),
                load_if_exists=True,
            )
            self.study.set_user_attr("settings", asdict(settings))

    def all(self) -> list[FrozenTrial]:
        """Return every trial so far, by number."""
        return self.study.get_trials(deepcopy=False)

    def retry_failed(self) -> None:
        """Let the settings of each failed trial be run once more, beyond the number of trials."""
        with locks.study_lock(self.folder):
            trials = self.all()
            again = {trial.user_attrs.get("again") for trial in trials}
            for trial in trials:
                if trial.state == TrialState.FAIL and trial.number not in again:
                    self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def claim(self) -> Claim | None:
        """Return a trial to run: one whose processes died, else a new one, else None.

        A new trial's parameters depend on its number and the trials before it alone, so that a
        sweep that was cut off goes on as if it had not been.
        """
        with locks.study_lock(self.folder):
            trials = self.all()
            for old in trials:
                if old.state == TrialState.RUNNING and (lock := self._take_over(old.number)):
                    return Claim(self._trial(old), lock)
            extra = sum("again" in trial.user_attrs for trial in trials)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if len(trials) >= self.settings.n_trials + extra and not waiting:
                return None
            self.study.sampler = make_sampler(self.settings, len(trials))
            trial = self.study.ask()
            lock = locks.take(self.folder, trial.number)
            assert lock is not None, "the number of a new trial is locked by nobody"
            return Claim(trial, lock)

    def running(self) -> int:
        """Return how many trials are not finished: by other workers, or by nobody any more."""
        return sum(trial.state == TrialState.RUNNING for trial in self.all())

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Store what came of a trial and let go of it; one that was cut off stays to be run."""
        trial, state = claim.trial, outcome.state
        if state == "killed":
            kills = trial.user_attrs.get("kills", 0) + 1
            trial.set_user_attr("kills", kills)
            state = "failed" if kills >= _MAX_KILLS else "cut"
        if state != "cut":
            facts = {"seconds": outcome.seconds, "error": outcome.error, "std": outcome.std}
            for name, value in facts.items():
                trial.set_user_attr(name, value)
            # Pruned: Optuna takes the last report for its value.
            values = outcome.values if state == "finished" else None
            end = {word: state for state, word in STATES.items()}[state]
            self.study.tell(trial, values, end, skip_if_finished=True)
        claim.lock.release()

    def _take_over(self, number: int) -> FileLock | None:
        lock = locks.take(self.folder, number)
        if lock and any(run_lock.holder(folder) for folder in self.runs(number)):
            lock.release()  # its worker died, but not the run itself: it is not started twice
            return None
        return lock

    def _trial(self, old: FrozenTrial) -> Trial:
        # Parameters it has are kept; were it killed before it had them all, the rest is the same
        # as it would have been.
        self.study.sampler = make_sampler(self.settings, old.number)
        return Trial(self.study, old._trial_id)


def best(trials: Sequence[FrozenTrial], objectives: dict[str, str]) -> list[FrozenTrial]:
    """Return the finished trials that no other beats in all objectives, best first of one."""
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    signs = [1 if mode == "min" else -1 for mode in objectives.values()]

    def losses(trial: FrozenTrial) -> list[float]:
        return [sign * value for sign, value in zip(signs, trial.values, strict=True)]

    def beaten(trial: FrozenTrial) -> bool:
        own = losses(trial)
        return any(
            losses(other) != own and all(a <= b for a, b in zip(losses(other), own, strict=True))
            for other in done
        )

    return [trial for trial in done if not beaten(trial)]


def facts(trial: FrozenTrial) -> dict[str, Any]:
    """Return what `Trials.finish` stored on a trial: seconds, error, std; None where not yet."""
    return {name: trial.user_attrs.get(name) for name in ("seconds", "error", "std")}
