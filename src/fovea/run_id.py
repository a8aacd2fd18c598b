"""Names of run folders: never used twice, and the same on all ranks of one run."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from fovea.errors import FoveaError


def make(outputs: Path) -> str:
    """Return a folder name that no other run in ``outputs`` has.

    Ranks that Lightning starts get it from rank 0's arguments. Ranks started from outside
    (torchrun, srun) cannot ask each other yet, so it comes from what their launcher tells all.

    Raises:
        FoveaError: started by torchrun on several nodes without a name that all nodes know, or in
            a SLURM job of several tasks without srun.
    """
    if (name := shared_name()) is not None:
        return name
    while True:
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"
        if not (outputs / name).exists():
            return name


def shared_name() -> str | None:
    """Return a name for this start that all ranks make up alike; None if Lightning starts them.

    Raises:
        FoveaError: as `make` does.
    """
    env = os.environ
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in env:
        if "SLURM_STEP_ID" not in env:  # the batch file itself, and nobody starts the other ranks
            raise FoveaError(
                f"This SLURM job has {env['SLURM_NTASKS']} tasks, but was started as one process: "
                "put srun in front, as in `srun python src/train.py …`"
            )
        restart = env.get("SLURM_RESTART_COUNT", "0")
        parts = ["slurm", env["SLURM_JOB_ID"], env["SLURM_STEP_ID"]]
        return "-".join(filter(None, [*parts, f"restart{restart}" if restart != "0" else ""]))
    if "TORCHELASTIC_RUN_ID" in env:
        if env["TORCHELASTIC_RUN_ID"] != "none":
            return f"torchrun-{env['TORCHELASTIC_RUN_ID']}"
        if env.get("GROUP_WORLD_SIZE", "1") != "1":
            raise FoveaError(
                "On several nodes the run needs a name that all know: add run_id=<name>, or give "
                "torchrun --rdzv-id=<name>."
            )
        # On one node all ranks have the same parent, which started once.
        parent = os.getppid()
        started = int(Path(f"/proc/{parent}").stat().st_ctime) if Path("/proc/self").exists() else 0
        return f"torchrun-{started}-{parent}"
    return None


def check_unused(folder: Path) -> None:
    """Raise `FoveaError` if ``folder`` holds a run already; only the first rank looks."""
    ranks = (os.environ.get(name, "0") for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
    if set(ranks) == {"0"} and (folder / "config.yaml").exists():
        raise FoveaError(
            f"run_id={folder.name}: {folder} holds a run already, and it would be overwritten. "
            f"Take another name, or go on with that run: resume={folder}"
        )
