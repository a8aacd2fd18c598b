"""Jobs as tasks of a Ray cluster, or of a Ray on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from fovea.errors import FoveaError
from fovea.launchers.job import INTERRUPTED, Job


class RayLauncher:
    """Runs each job as a Ray task, wherever its processors and GPUs are free.

    The machines need the same paths: code, Python, data and run folders on a shared disk. A job
    sees its own GPUs only.

    Args:
        address: of a cluster, such as "auto" or "ray://head:10001"; None: the variable
            RAY_ADDRESS, else a Ray on this machine that ends with the command.
        cpus_per_job: processors, also the number that OMP_NUM_THREADS gets.
        gpus_per_job: GPUs; a fraction shares one.
        retries: how often a job whose machine was lost is started again; it goes on with its last
            checkpoint.
    """

    def __init__(
        self, address: str | None, cpus_per_job: int, gpus_per_job: float, retries: int
    ) -> None:
        self.address = address
        self.cpus_per_job = cpus_per_job
        self.gpus_per_job = gpus_per_job
        self.retries = retries

    def run(self, jobs: list[Job], need_results: bool) -> None:
        """Run ``jobs`` to their ends; see `fovea.launchers.Launcher`."""
        del need_results
        try:
            import ray
        except ImportError:
            raise FoveaError("launcher=ray needs Ray: pip install '.[ray]'") from None
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
        task = ray.remote(
            num_cpus=self.cpus_per_job, num_gpus=self.gpus_per_job, max_retries=self.retries
        )(run_command)
        tasks: dict[Any, Job] = {}
        for job in jobs:
            print(f"\n{job.title()}\n  output in {job.folder / 'output.log'}", flush=True)
            tasks[task.remote(job.restartable(), str(job.folder), os.getcwd())] = job
        try:
            while tasks:
                (ended, *_), _ = ray.wait(list(tasks))
                job = tasks.pop(ended)
                job.status = _status_of(ended)
                print(job.ending(), flush=True)
        except KeyboardInterrupt:
            for running in tasks:
                ray.cancel(running, force=False)
            ray.wait(list(tasks), num_returns=len(tasks), timeout=60)
            raise


def run_command(command: list[str], folder: str, directory: str) -> int:
    """Return the exit status of ``command``, whose output is appended to ``folder``/output.log.

    Runs in a Ray worker; a cancelled task stops the command as Ctrl-C does, with a checkpoint.
    """
    with open(f"{folder}/output.log", "ab") as log:
        job = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            return job.wait()
        except KeyboardInterrupt:
            job.send_signal(signal.SIGINT)
            return job.wait()


def _status_of(task: Any) -> int:
    """Return the exit status of a task that has ended, also where Ray lost it."""
    import ray

    try:
        return int(ray.get(task))
    except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
        return INTERRUPTED
    except ray.exceptions.RayError as error:  # its machine or worker died
        print(f"Ray: {str(error).splitlines()[0]}", flush=True)
        return 1
