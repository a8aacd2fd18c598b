"""A job: one run as a command line of its own; and what a launcher is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fovea import run_folder
from fovea.machine.signals import TEMPORARY_FAILURE

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

START_AGAIN = TEMPORARY_FAILURE


@dataclass
class Job:
    """One run as a command line.

    Attributes:
        name: for messages; the name of its folder.
        settings: what was typed or chosen for it, for messages.
        command: program and arguments.
        folder: of the run; it exists.
        status: exit status, None while nobody knows.
        resumes: whether the command can go on with a run.
    """

    name: str
    settings: str
    command: list[str]
    folder: Path
    status: int | None = None
    resumes: bool = True

    @property
    def failed(self) -> bool:
        """Whether the job is known to have ended badly."""
        return self.status not in (0, None)

    def restartable(self) -> list[str]:
        """Return the command such that it goes on with the run when it is started again."""
        given = any(word.startswith("resume=") for word in self.command)
        return self.command if given or not self.resumes else [*self.command, "resume=auto"]

    def objective(self) -> float | None:
        """Return what the run wrote down as its objective: NaN if it failed, None if not known."""
        if self.failed:
            return math.nan
        value = run_folder.read_summary(self.folder).get("objective")
        return None if value is None else float(value)

    def title(self) -> str:
        """Return one line that names the job."""
        return f"[{self.name}] {self.settings or 'defaults'}"

    def ending(self) -> str:
        """Return a line on how the job ended, after the last ones of its output if it failed."""
        if self.status in (INTERRUPTED, START_AGAIN):
            return f"[{self.name}] interrupted"
        if not self.failed:
            return f"[{self.name}] done, objective {self.objective()}"
        log = self.folder / "output.log"
        last = log.read_text(errors="replace").splitlines()[-8:] if log.is_file() else []
        return "\n".join([*(f"  | {line}" for line in last), f"[{self.name}] failed"])


def exit_status(jobs: list[Job]) -> int | None:
    """Return the status to end with since a job was told to stop, None if none was."""
    found = {job.status for job in jobs} & {INTERRUPTED, START_AGAIN}
    return max(found, default=None)  # type: ignore[type-var]


class Launcher(Protocol):
    """Runs jobs somewhere."""

    def run(self, jobs: list[Job], need_results: bool) -> None:
        """Run ``jobs`` and set their ``status``.

        Args:
            jobs: in the order in which to start them.
            need_results: whether the caller goes by their results; if not, a launcher that hands
                jobs to a queue may return at once, and leaves their status None.

        Raises:
            FoveaError: this machine lacks what the launcher needs.
            KeyboardInterrupt: after a signal (`fovea.machine.signals`), once the running jobs have
                saved and ended.
            SystemExit: a job was told to stop, but this process was not.
        """
