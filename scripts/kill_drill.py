"""Kill trainings at random moments, type the same command again, and compare the ends.

    python scripts/kill_drill.py --kills 100 --seed 0 [--scenario NAME …] [key=value …]

Each scenario trains a tiny network once without a cut. Then the same command, with resume=auto, is
killed again and again, by SIGKILL and by SIGTERM, anywhere between its start and its end and in the
middle of writing a checkpoint, and typed again until it ends by itself; and so on with new runs
until there were enough kills. Each end is compared with the uncut run: every bit of weights,
averaged weights, optimiser, scheduler and counters, every row of metrics.csv, the objective. The
exit status is 1 if anything differs. Words key=value are added to each scenario's command.

Commands are forked from this process, which has torch imported already; --fresh starts real ones,
which is slow: about ten seconds more a kill.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

# Before torch is imported: with more threads a forked command would wait for ones it does not have.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from drill_compare import differences
from drill_jobs import Job, start
from drill_scenarios import COMMON, SCENARIOS, make_images

from fovea import run_folder
from fovea.errors import FoveaError
from fovea.inference import read_checkpoint
from fovea.tracking.metrics_csv import read_rows

ENDED_BY_KILL = (-signal.SIGKILL, -signal.SIGTERM, 75)
"""Exit statuses of commands that were killed: 75 after SIGTERM with a checkpoint written."""

GRACE = 60
"""Seconds from SIGTERM to SIGKILL, as schedulers have it."""

SHARE_WRITING = 0.4
"""Kills that wait for a checkpoint to be written; the others come at any time."""


@dataclass
class Result:
    """What came of a scenario; of ``problems`` there should be none."""

    scenario: str
    runs: int = 0
    sigkill: int = 0
    sigterm: int = 0
    writing: int = 0
    restarts: int = 0
    repeated: int = 0
    different: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Return how often a running command was ended."""
        return self.sigkill + self.sigterm


class Drill:
    """One scenario: its uncut run, and runs that are killed until there were enough kills."""

    def __init__(self, name: str, words: list[str], folder: Path, seed: int, fresh: bool) -> None:
        self.words = words
        self.folder = folder / name
        self.random = random.Random(f"{seed}/{name}")
        self.fresh = fresh
        devices = [w.partition("=")[2] for w in words if w.startswith("trainer.devices=")]
        self.ranks = int(devices[-1]) if devices else 1
        self.result = Result(name)
        self.seconds = 0.0

    def run(self, kills: int) -> Result:
        """Return the counts after at least ``kills`` kills and the end of the run they fell in."""
        uncut = self._start("uncut")
        if (status := uncut.wait()) != 0:
            return self._problem(f"the uncut run ended with status {status}", uncut)
        self.seconds = time.monotonic() - uncut.started
        while self.result.kills < kills and not self.result.problems:
            self.result.runs += 1
            self._run_with_kills(f"run{self.result.runs}", kills)
        return self.result

    def _start(self, name: str) -> Job:
        words = [*self.words, "resume=auto", f"paths.outputs={self.folder / name}"]
        return start(words, self.folder / name, self.ranks, self.fresh)

    def _run_with_kills(self, name: str, kills: int) -> None:
        """Type the command until it ends by itself, then compare."""
        while True:
            began = time.time()
            job = self._start(name)
            if self.result.kills < kills:
                self._kill(job, name)
            try:
                status = job.wait()
            except TimeoutError as error:
                self._problem(str(error), job)
                return
            if status == 0:
                break
            if status not in ENDED_BY_KILL:
                self._problem(f"{name}: status {status}, which no kill explains", job)
                return
            self.result.restarts += 1
            self.result.repeated += self._steps_lost(name, began)
        folders = [f for f in (self._run_folder("uncut"), self._run_folder(name)) if f]
        found = differences(*folders) if len(folders) == 2 else ["not one run folder"]
        if found:
            self.result.different += 1
            self._problem(f"{name}: {'; '.join(found[:5])}", job)

    def _kill(self, job: Job, name: str) -> None:
        """Send SIGKILL or SIGTERM at a random moment, if the command lives until then."""
        number = self.random.choice([signal.SIGKILL, signal.SIGTERM])
        if self.random.random() < SHARE_WRITING:
            self._wait_for_write(job, name, self.random.randint(1, 6))
        else:
            at = job.started + self.random.uniform(0, self.seconds)
            while job.poll() is None and time.monotonic() < at:
                time.sleep(0.001)
        if job.poll() is not None:
            return
        writing = bool(self._partial_files(name))
        job.send(number)
        try:
            if job.wait(GRACE) == 0:  # it had just ended by itself
                return
        except TimeoutError:  # a rank that waits for one which is gone already: killed by now
            pass
        if number == signal.SIGKILL:
            writing = bool(self._partial_files(name))  # half a file was left
        self.result.sigkill += number == signal.SIGKILL
        self.result.sigterm += number == signal.SIGTERM
        self.result.writing += writing

    def _wait_for_write(self, job: Job, name: str, times: int) -> None:
        """Return when a checkpoint begins to be written for the ``times``-th time."""
        there = bool(self._partial_files(name))  # left by the kill before
        while job.poll() is None and times:
            before, there = there, bool(self._partial_files(name))
            times -= there and not before
            time.sleep(0.0005)

    def _partial_files(self, name: str) -> list[str]:
        folder = self._run_folder(name)
        try:
            names = os.listdir(folder / "checkpoints") if folder else []
        except FileNotFoundError:
            return []
        return [file for file in names if file.endswith(".part")]

    def _run_folder(self, name: str) -> Path | None:
        """Return the only run folder: a second one would be a run that was not found again."""
        folders = [f for f in (self.folder / name).glob("*/") if not f.name.startswith(".")]
        return folders[0] if len(folders) == 1 else None

    def _steps_lost(self, name: str, began: float) -> int:
        """Return the steps made by the command that ``began`` then, and in no checkpoint."""
        folder = self._run_folder(name)
        table = folder / "metrics.csv" if folder else None
        if folder is None or table is None or not table.exists() or table.stat().st_mtime < began:
            return 0
        made = int(read_rows(table)[-1]["step"]) + 1
        try:
            saved = read_checkpoint(run_folder.checkpoint(folder, "last")).global_step
        except FoveaError:  # none yet
            saved = 0
        return max(0, made - saved)

    def _problem(self, text: str, job: Job) -> Result:
        self.result.problems.append(f"{self.result.scenario}: {text} ({job.log})")
        return self.result


def print_table(results: list[Result]) -> None:
    """Print a row for each scenario, and their sums."""
    columns = ("runs", "kills", "sigkill", "sigterm", "writing", "restarts", "repeated")
    columns += ("different",)
    print(f"{'scenario':10}" + "".join(f"{name:>11}" for name in columns))
    rows = [(r.scenario, [getattr(r, name) for name in columns]) for r in results]
    rows.append(("all", [sum(column) for column in zip(*(row for _, row in rows), strict=True)]))
    for name, row in rows:
        print(f"{name:10}" + "".join(f"{number:>11}" for number in row))


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="in all, shared by the scenarios")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at a time")
    parser.add_argument("--fresh", action="store_true", help="start real commands, do not fork")
    parser.add_argument("--folder", type=Path, help="to work in, and keep; else a temporary one")
    parser.add_argument("words", nargs="*", metavar="key=value", help="for each command")
    return parser.parse_intermixed_args()


def run_scenario(name: str, folder: Path, kills: int, options: argparse.Namespace) -> Result:
    """Return what came of one scenario."""
    places = {"images": str(folder / "images"), "shards": str(folder / "shards")}
    words = [word.format(**places) for word in (*COMMON, *SCENARIOS[name])]
    return Drill(name, [*words, *options.words], folder, options.seed, options.fresh).run(kills)


def main() -> int:
    """Run the drill; return 1 if a run ended otherwise than its uncut one, else 0."""
    options = parse_arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        if {"folder", "shards"} & set(options.scenario):
            make_images(folder)
        share = -(-options.kills // len(options.scenario))
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(options.jobs, mp_context=fork) as pool:
            jobs = [
                pool.submit(run_scenario, name, folder, share, options) for name in options.scenario
            ]
            results = [job.result() for job in jobs]
    print_table(results)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    problems = [text for result in results for text in result.problems]
    for text in problems:
        print(text, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
