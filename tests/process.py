"""Runs the commands as a user would: real processes, no terminal, no account, no answers.

To import torch and its company takes longer than a small run. So most commands are forked from a
server that has done it once, as ``multiprocessing`` offers; the script itself runs from its first
line. What looks at signals, at imports or at the process itself asks for ``fresh=True``.
"""

import atexit
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
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


def run(command, *words, cwd, check=True, timeout=400, fresh=False, **extra):
    """Run a command to its end in ``cwd`` and return the finished process."""
    start = _run_fresh if fresh else _run_forked
    done = start(arguments(command, *words), cwd, environment(**extra), timeout)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def _run_fresh(line, cwd, env, timeout):
    return subprocess.run(
        line, cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True,
        text=True,
    )  # fmt: skip


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([f"fovea.commands.{name}" for name in ("train", "eval", "predict")])


def _run_forked(line, cwd, env, timeout):
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_become, args=(line[1:], cwd, env, printed))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(line, timeout, *(p.read_text() for p in printed))
        texts = [path.read_text() if path.exists() else "" for path in printed]
        return subprocess.CompletedProcess(line, process.exitcode, *texts)


def _become(line, cwd, env, printed):
    """Be ``python <line>`` from here on."""
    for number, path in enumerate(printed, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [str(Path(line[0]).parent), *env.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = line
    try:
        runpy.run_path(line[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def folder_of(done, cwd):
    """Return the run folder that a finished command printed."""
    return Path(cwd) / "outputs" / re.search(r"^fovea: (\S+)", done.stdout, flags=re.M)[1]
