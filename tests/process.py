"""Runs the commands as a user would: real processes, no terminal, no account, no answers."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ("data.limit_per_class=16", "data.batch_size=32", "trainer.max_epochs=2")


def environment(**extra):
    """Return this process's environment without what would change a command's behaviour."""
    hidden = ("WANDB", "LOCAL_RANK", "HYDRA", "PYTEST")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    return {**clean, "OMP_NUM_THREADS": "1", **extra}


def arguments(command, *words):
    """Return the command line of ``src/<command>.py``."""
    return [sys.executable, str(ROOT / "src" / f"{command}.py"), *map(str, words)]


def run(command, *words, cwd, check=True, timeout=400, **extra):
    """Run a command to its end in ``cwd`` and return the finished process."""
    done = subprocess.run(
        arguments(command, *words), cwd=cwd, env=environment(**extra), timeout=timeout,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def folder_of(done, cwd):
    """Return the run folder that a finished command printed."""
    return Path(cwd) / "outputs" / re.search(r"^fovea: (\S+)", done.stdout, flags=re.M)[1]
