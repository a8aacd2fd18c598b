"""A SLURM job that goes on after its time limit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

from fovea.machine.signals import STOP, TEMPORARY_FAILURE


def requeue(status: object, goes_on: bool) -> None:
    """Put this job back into SLURM's queue if SIGUSR1 ended its run; only its first rank does.

    SIGUSR1 is what ``#SBATCH --signal=USR1@90`` sends before the time is over. SIGTERM is not
    answered so: it comes with ``scancel``, and after a pre-emption SLURM requeues by itself.

    Args:
        status: exit status of the run.
        goes_on: whether the job's command, run again, would go on with the run.
    """
    job = os.environ.get("SLURM_JOB_ID")
    asked = STOP.received == getattr(signal, "SIGUSR1", None) and status == TEMPORARY_FAILURE
    if not asked or job is None or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    if os.environ.get("LOCAL_RANK", "0") != "0" or "SUBMITIT_EXECUTOR" in os.environ:
        return  # another rank of this machine; submitit requeues its jobs by itself
    if not goes_on:
        print("The job is not requeued: that needs resume=auto in its command.", file=sys.stderr)
    elif shutil.which("scontrol") is None:
        print("The job can't be requeued: there is no scontrol here.", file=sys.stderr)
    else:
        print(f"Requeueing job {job}.", file=sys.stderr, flush=True)
        subprocess.run(["scontrol", "requeue", job], check=False)
