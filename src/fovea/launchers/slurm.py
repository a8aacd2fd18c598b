"""Jobs of a SLURM cluster, handed over as one plain batch file that can be read and sent again.

SLURM sends USR1 to the tasks some time before the time limit. The run writes a checkpoint, and its
first rank puts the job back into the queue (`fovea.machine.slurm`), to go on from there by
``resume=auto``.
Nobody else listens or requeues, and nothing is pickled.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

from fovea import run_folder, run_lock
from fovea.errors import FoveaError
from fovea.launchers.job import START_AGAIN, Job

_POLL_S = 10
_NUMBER = "slurm_job.txt"  # in a run folder: the job or array element that SLURM has it as
_KILLED = 137  # what a shell gives for signal 9
# In seconds after the first task of a job has ended: a rank that died ends the others, and rank 0
# has the time to write its figures and to close its loggers.
_WAIT_S = 60


class SlurmLauncher:
    """Submits a single run as a job and a sweep as an array, with one task a device.

    Args:
        nodes: of each job.
        devices: tasks on each node, and GPUs unless ``accelerator`` is "cpu"; "auto" is one.
        accelerator: ``trainer.accelerator``.
        at_once: jobs of an array that run at once; None: as many as fit.
        grace: seconds before the time limit at which a run is told to save.
        options: of sbatch, by name; None leaves one out.
        setup: shell lines before the job.
        wait: whether to wait for the jobs; "auto": only if somebody goes by their results.
        submit: False writes the batch file and says how to send it.
    """

    def __init__(
        self,
        nodes: int,
        devices: int | Literal["auto"],
        accelerator: str,
        at_once: int | None,
        grace: int,
        options: dict[str, Any],
        setup: list[str],
        wait: bool | Literal["auto"],
        submit: bool,
    ) -> None:
        tasks = devices if isinstance(devices, int) and devices > 0 else 1
        self.at_once, self.setup, self.wait, self.submit = at_once, setup, wait, submit
        self.options = {
            "job-name": "fovea",
            "nodes": nodes,
            "ntasks-per-node": tasks,
            "gpus-per-node": None if accelerator == "cpu" else tasks,
            "signal": f"USR1@{grace}",
            "requeue": True,
            "open-mode": "append",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }

    def run(self, jobs: list[Job], need_results: bool) -> None:
        """Submit ``jobs``, and wait for them if asked to; see `fovea.launchers.Launcher`.

        One that is in the queue already, from an earlier command, is not submitted again.
        """
        if self.submit and shutil.which("sbatch") is None:
            raise FoveaError(
                "launcher=slurm: there is no sbatch on this machine. Type the command on a login "
                "node of the cluster, or write the batch file only: launcher.submit=false"
            )
        new = [job for job in jobs if not (self.submit and _is_queued(job))]
        if new:
            self._hand_over(new)
        if self.submit and (self.wait is True or (self.wait == "auto" and need_results)):
            _wait_for(jobs)

    def _hand_over(self, jobs: list[Job]) -> None:
        """Write the batch file of ``jobs`` and, if asked to, submit it."""
        folder = jobs[0].folder if len(jobs) == 1 else jobs[0].folder.parent
        # A sweeper that submits several batches: one file each.
        file = folder / f"slurm-{jobs[0].name}.sh" if len(jobs) > 1 else folder / "slurm.sh"
        file.touch(mode=0o600)  # commands may hold passwords
        file.chmod(0o600)
        file.write_text(self.batch_file(jobs, folder), encoding="utf-8")
        if not self.submit:
            print(f"\nTo submit {len(jobs)} job(s): sbatch {shlex.quote(str(file))}")
            return
        number = _submit(file)
        for index, job in enumerate(jobs):
            name = f"{number}_{index}" if len(jobs) > 1 else number
            (job.folder / _NUMBER).write_text(name + "\n")
        log = f"{folder}/slurm-{number}{'_*' if len(jobs) > 1 else ''}.log"
        print(
            f"\nSLURM job {number}: {len(jobs)} run(s)\n  queue    squeue -j {number}\n"
            f"  follow   tail -f {log}\n  cancel   scancel {number}\n  file     {file}",
            flush=True,
        )

    def batch_file(self, jobs: list[Job], folder: Path) -> str:
        """Return the text of the batch file for ``jobs``, whose logs go to ``folder``."""
        options = dict(self.options)
        options["output"] = f"{folder}/slurm-{'%A_%a' if len(jobs) > 1 else '%j'}.log"
        if len(jobs) > 1:
            limit = f"%{self.at_once}" if self.at_once else ""
            options["array"] = f"0-{len(jobs) - 1}{limit}"
        lines = ["#!/bin/bash"]
        for name, value in options.items():
            if value not in (None, False):
                if not f"{name}{value}".isprintable():  # a further line would be run by the shell
                    raise FoveaError(f"launcher.options.{name}={value!r}: one printable line only")
                given = "" if value is True else f"={_sbatch_quote(str(value))}"
                lines.append(f"#SBATCH --{name}{given}")
        lines += ["", f"cd {shlex.quote(os.getcwd())} || exit 1", *self.setup]
        lines += ["case ${SLURM_ARRAY_TASK_ID:-0} in"]
        for index, job in enumerate(jobs):
            lines.append(f"{index}) set -- {shlex.join(job.restartable())} ;;")
        lines += [
            "esac",
            f'srun --wait={_WAIT_S} "$@"',
        ]
        return "\n".join(lines) + "\n"


def _sbatch_quote(text: str) -> str:
    # sbatch splits the line at blanks, and takes what stands in double quotes as one word.
    return text if re.fullmatch(r"[^\s\"'\\]+", text) else '"' + text.replace('"', '\\"') + '"'


def _submit(file: Path) -> str:
    """Return the number that SLURM gives to the job of ``file``."""
    # From within a job (an interactive one, say), its own settings must not reach the new one.
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SRUN_", "SBATCH_"))}
    if "SLURM_CONF" in os.environ:
        ours["SLURM_CONF"] = os.environ["SLURM_CONF"]
    done = subprocess.run(
        ["sbatch", "--parsable", str(file)], env=ours, capture_output=True, text=True
    )
    if done.returncode:
        raise FoveaError(
            f"sbatch refused {file}: {done.stderr.strip()}\n"
            "  Its settings: --cfg job --package launcher"
        )
    return done.stdout.strip().split(";")[0]  # "12" or "12;cluster"


def _is_queued(job: Job) -> bool:
    """Return whether an earlier command has submitted ``job`` and SLURM still has it."""
    try:
        name = (job.folder / _NUMBER).read_text().strip()
    except FileNotFoundError:
        return False
    queued = _queued(name.partition("_")[0])
    if queued is None:
        raise FoveaError(
            f"SLURM does not say whether job {name}, submitted for {job.folder}, is still in its "
            "queue: squeue fails. Type the command again later"
        )
    if name in queued:
        print(f"{job.title()}\n  is SLURM job {name} already", flush=True)
    return name in queued


def _wait_for(jobs: list[Job]) -> None:
    """Set the status of each job when it has left the queue, by what its run folder says."""
    print("Waiting; Ctrl-C leaves the jobs in the queue.", flush=True)
    names = {job.name: (job.folder / _NUMBER).read_text().strip() for job in jobs}
    absent: dict[str, int] = {}
    while waiting := [job for job in jobs if job.status is None]:
        time.sleep(_POLL_S)
        numbers = {names[job.name].partition("_")[0] for job in waiting}
        queued = {number: _queued(number) for number in numbers}
        for job in waiting:
            there = queued[names[job.name].partition("_")[0]]
            gone = there is not None and names[job.name] not in there
            absent[job.name] = absent.get(job.name, 0) + 1 if gone else 0
            # Twice: a shared file system may be a moment behind.
            if absent[job.name] >= 2 and run_lock.holder(job.folder) is None:
                state = run_folder.read_summary(job.folder).get("state")
                job.status = _status_after(state)
                print(f"[{job.name}] {state}, objective {job.objective()}", flush=True)


def _status_after(state: str | None) -> int:
    """Return the exit status of a job that has left the queue with ``state`` in its summary."""
    if state == "running":  # it could not write: no memory, or its node was lost
        return _KILLED
    if state == "interrupted":  # scancel
        return START_AGAIN
    return 0 if state in {"finished", "pruned"} else 1


def _queued(number: str) -> set[str] | None:
    """Return the jobs and array elements of ``number`` in the queue; None if SLURM won't say."""
    done = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={number}"],
        capture_output=True,
        text=True,
    )
    if done.returncode and "Invalid job id" in done.stderr:
        return set()  # forgotten: it ended some minutes ago
    return None if done.returncode else set(done.stdout.split())
