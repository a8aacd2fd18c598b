"""Train commands as processes that can be killed: forked from this one, or started afresh.

A forked command has torch imported already, and so costs a second or two instead of ten; all the
rest is ``python src/train.py``: arguments, resume, training, report. Of several ranks the first
one's arguments are prepared, then all are started as torchrun would; Lightning's own launcher is
left out, as are the imports. ``fresh=True`` leaves nothing out.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import fovea.cli
import fovea.commands.train  # so that a forked command need not
from fovea.arguments import prepare_arguments

ROOT = Path(__file__).resolve().parents[1]
TRAIN = str(ROOT / "src" / "train.py")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}


@dataclass
class Job:
    """A running train command: the processes of a session of their own.

    Attributes:
        pid: of the first rank, and of the process group of all.
        log: file with all that it printed.
        started: by the monotonic clock.
    """

    pid: int
    log: Path
    started: float
    _process: subprocess.Popen[bytes] | None = None
    _status: int | None = None

    def poll(self) -> int | None:
        """Return the first rank's exit status (minus a signal's number), None while it runs."""
        if self._process is not None:
            return self._process.poll()
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, seconds: float = 300) -> int:
        """Return the exit status.

        Raises:
            TimeoutError: it is still running after ``seconds``; it was killed.
        """
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"{self.log}: still running after {seconds:.0f} s")
            time.sleep(0.005)
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes, as a cluster does."""
        os.killpg(self.pid, number)


def start(words: list[str], cwd: Path, ranks: int = 1, fresh: bool = False) -> Job:
    """Return ``python src/train.py <words>``, started in ``cwd``, which is made if absent."""
    cwd.mkdir(parents=True, exist_ok=True)
    log, now = cwd / "printed.log", time.monotonic()
    if fresh:
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, TRAIN, *words], cwd=cwd, env={**os.environ, **ONE_THREAD},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        return Job(process.pid, log, now, process)
    pid = os.fork()
    if not pid:
        _become(lambda: _train(words, cwd, ranks), log)
    _wait_for_session(pid)
    return Job(pid, log, now)


def _wait_for_session(pid: int) -> None:
    while os.getpgid(pid) != pid:
        time.sleep(0.001)


def _become(task: Callable[[], None], log: Path) -> None:
    """Run ``task`` as the rest of this forked process, which prints to ``log``."""
    status = 1
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        task()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _train(words: list[str], cwd: Path, ranks: int) -> None:
    os.chdir(cwd)
    os.environ.update(ONE_THREAD)
    if ranks > 1:
        prepared = prepare_arguments("train", words)
        fovea.cli.prepare_arguments = lambda command, arguments: prepared
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
        os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_RANK": "0"}
        for rank in range(1, ranks):
            if not os.fork():
                os.environ["LOCAL_RANK"] = str(rank)
                rank_zero_only.rank = rank  # as Lightning does when it is imported
                break
    sys.argv = [TRAIN, *words]
    fovea.cli.main("train")
