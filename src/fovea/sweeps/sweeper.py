"""Running a sweep: trial after trial, each by Hydra's launcher, until all are done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any, NoReturn

from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from optuna.trial import FrozenTrial, TrialState

from fovea import run_folder
from fovea.launchers import BasicLauncher, LocalLauncher
from fovea.safety.redaction import redact_command
from fovea.sweeps import outcomes, table
from fovea.sweeps.plan import Plan
from fovea.sweeps.sampling import suggest
from fovea.sweeps.study import STATES, Claim, Trials, best, facts
from fovea.sweeps.table import Entry

_POLL_S = 5
_HELPER = "FOVEA_SWEEP_HELPER"  # set for workers that another one has started


def run_study(config: DictConfig, words: list[str], launcher: Launcher) -> NoReturn:
    """Run the trials of ``sweep=<space>`` that are left, then print and write what they showed.

    Args:
        config: composed by Hydra, its own node included, without the sweeps in ``words``.
        words: overrides of the command line.
        launcher: how a trial is started.

    Raises:
        SystemExit: always; with status 1 if trials failed.
    """
    plan = Plan(config, words)
    plan.record()
    trials = Trials(plan.folder, plan.settings, plan.runs)
    helper, places = _HELPER in os.environ, instantiate(config.launcher)
    here, workers = isinstance(places, BasicLauncher), plan.workers or _places(places)
    if plan.retry_failed and not helper:
        trials.retry_failed()
    helpers = _start_helpers(workers - 1) if here else []
    runner = _Runner(plan, trials, launcher)
    try:
        runner.run(1 if here else workers, wait=not helper)
    except BaseException as error:
        for process in helpers:
            process.terminate()  # they save; where a terminal has sent them Ctrl-C it does nothing
        if isinstance(error, KeyboardInterrupt | SystemExit):
            print(f"\nInterrupted. The same command goes on with {plan.folder}", file=sys.stderr)
        raise
    finally:
        for process in helpers:
            process.wait()
        runner.write_table()
    failed = False if helper else _conclude(plan, trials)
    sys.exit(int(failed))


class _Runner:
    """Claims trials, runs them, stores what came of them."""

    def __init__(self, plan: Plan, trials: Trials, launcher: Launcher) -> None:
        self.plan, self.trials, self.launcher = plan, trials, launcher

    def run(self, at_once: int, wait: bool) -> None:
        """Run trials, ``at_once`` by one call of the launcher, until there is none to start.

        Args:
            at_once: more than one where the launcher runs jobs side by side.
            wait: also for the trials of others: should one of them die, its trial is taken over.
        """
        waiting = False
        while True:
            claims: list[Claim] = []
            while len(claims) < at_once and (claim := self.trials.claim()):
                claims.append(claim)
            if claims:
                self._run(claims)
                self.write_table()
                waiting = False
            elif not wait or not (others := self.trials.running()):
                return
            else:
                if not waiting:
                    print(f"\nWaiting for {others} trial(s) of other processes …", flush=True)
                waiting = True
                time.sleep(_POLL_S)

    def _run(self, claims: list[Claim]) -> None:
        # The first seed may show that a trial is hopeless; only then are the others worth it.
        seeds = self.plan.seeds
        self._launch([(claim, seeds[0]) for claim in claims])
        going = [claim for claim in claims if self._outcome(claim, seeds[:1]).state == "finished"]
        if len(seeds) > 1 and going:
            self._launch([(claim, seed) for claim in going for seed in seeds[1:]])
        for claim in claims:
            outcome = self._outcome(claim, seeds)
            if outcome.state == "cut":  # it would be taken again, and again
                outcome = outcomes.Outcome("failed", error="ended without a result")
            self.trials.finish(claim, outcome)
            values = dict(zip(self.plan.objectives, outcome.values or [], strict=False))
            shown = ", ".join(f"{name} {value:.5g}" for name, value in values.items())
            print(f"trial {claim.number}: {' '.join(filter(None, [outcome.state, shown]))}"
                  f"{f': {outcome.error}' if outcome.error else ''}", flush=True)  # fmt: skip

    def _outcome(self, claim: Claim, seeds: list[int | None]) -> outcomes.Outcome:
        folders = [self.plan.folder / self.plan.name_of(claim.number, seed) for seed in seeds]
        return outcomes.read(folders, list(self.plan.objectives))

    def _launch(self, jobs: list[tuple[Claim, int | None]]) -> None:
        """Run one job for each trial and seed that has no end yet."""
        jobs = [(claim, seed) for claim, seed in jobs if not self._ended(claim, seed)]
        if not jobs:
            return
        overrides = [self._overrides(claim, seed) for claim, seed in jobs]
        try:
            self.launcher.launch(overrides, initial_job_idx=jobs[0][0].number)
        except (HydraException, OmegaConfBaseException) as error:  # settings that do not compose
            if len(jobs) > 1:  # no job was started yet: alone, each shows whether it is the one
                for job in jobs:
                    self._launch([job])
                return
            ((claim, seed),) = jobs
            folder = self.plan.folder / self.plan.name_of(claim.number, seed)
            folder.mkdir(parents=True, exist_ok=True)
            run_folder.write_summary(folder, state="failed", error=str(error))

    def _ended(self, claim: Claim, seed: int | None) -> bool:
        """Return whether a trial that was begun before has run to its end with this seed."""
        begun = "words" in claim.trial.user_attrs  # else the folder is of another study
        return begun and self._outcome(claim, [seed]).state in {"finished", "pruned", "failed"}

    def _overrides(self, claim: Claim, seed: int | None) -> list[str]:
        sampled = self.plan.space.sample(lambda p: suggest(claim.trial, p), self.plan.default)
        words = [f"{key}={value}" for key, value in sampled.items()]
        if claim.trial.user_attrs.get("words") != words:
            claim.trial.set_user_attr("words", words)
        return [*self.plan.space.shared, *words, *self.plan.own(claim.number, seed)]

    def write_table(self) -> None:
        """Write sweep.csv and sweep.txt anew."""
        entries, objectives = _entries(self.plan, self.trials.all()), self.plan.objectives
        table.write(self.plan.folder / "sweep.csv", entries, objectives)
        table.replace_file(self.plan.folder / "sweep.txt", table.text(entries, objectives) + "\n")


def _start_helpers(count: int) -> list[subprocess.Popen[bytes]]:
    """Start ``count`` more workers: the same command, as if it had been typed in other shells."""
    command = [sys.executable, *sys.argv, "sweep.workers=1"]
    return [subprocess.Popen(command, env={**os.environ, _HELPER: "1"}) for _ in range(count)]


def _places(launcher: Any) -> int:
    """Return how many jobs ``launcher`` runs side by side by itself."""
    if isinstance(launcher, LocalLauncher):
        return launcher.places()
    print("One trial at a time. For eight: sweep.workers=8", flush=True)
    return 1


def _entries(plan: Plan, trials: list[FrozenTrial]) -> list[Entry]:
    return [
        Entry(
            name=str(trial.number),
            state=STATES.get(trial.state, ""),
            params=dict(word.split("=", 1) for word in trial.user_attrs.get("words", [])),
            values=trial.values if trial.state == TrialState.COMPLETE else None,
            folder=";".join(plan.name_of(trial.number, seed) for seed in plan.seeds),
            count=len(plan.seeds),
            **facts(trial),
        )
        for trial in trials
    ]


def _conclude(plan: Plan, trials: Trials) -> bool:
    """Print the table, the best command line and where the files are; return if trials failed."""
    from fovea.sweeps import plots  # slow, and of no use to helpers

    found, objectives = trials.all(), plan.objectives
    entries = _entries(plan, found)
    counts = {state: sum(e.state == state for e in entries) for state in STATES.values()}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print(f"\nsweep {plan.folder.name}: {len(entries)} trials: {told}\n")
    print(table.text(entries, objectives))
    pictures = plots.draw(trials.study, objectives, plan.folder)
    winners = best(found, objectives)[: 1 if len(objectives) == 1 else 5]
    if winners:
        print("\nThe best settings, to type again:" if len(objectives) == 1
              else "\nSettings that no other beats in everything:")  # fmt: skip
    for trial in winners:
        shared = [word for word in plan.space.shared if not word.startswith("launcher")]
        words = [*shared, *trial.user_attrs.get("words", [])]
        print("  " + redact_command(["python", "src/train.py", *words]))
    print("\nFiles:")
    for path in [plan.folder / "sweep.csv", *pictures]:
        print(f"  {os.path.relpath(path)}")
    sys.stdout.flush()
    again = {trial.user_attrs.get("again") for trial in found}
    return any(t.state == TrialState.FAIL and t.number not in again for t in found)
