"""Try a real SLURM on this machine: two nodes of two processors each, on localhost.

    apt-get install slurm-wlm munge          # as root, in a container or a machine to throw away
    python scripts/try_slurm.py [folder]

Starts munged, slurmctld and two slurmd with everything in ``folder`` (a temporary one), runs what
the README promises through it, prints a table, and ends them. Takes about ten minutes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

TRAIN = [sys.executable, str(Path(__file__).parents[1] / "src" / "train.py")]
SMALL = [
    "model=timm", "model.name=test_vit", "data.limit_per_class=16", "data.batch_size=32",
    "data.num_workers=1", "logger=none", "trainer=ddp_cpu", "trainer.max_epochs=8",
    "trainer.log_every_n_steps=1",
]  # fmt: skip
TIMEOUT_S = 900
CONFIG = """\
ClusterName=try
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool-%n
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=16818 CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=16819 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Run a SLURM of two nodes on this machine while inside; its files go to ``folder``."""
    for name in ("munge", "state", "spool-n1", "spool-n2"):
        (folder / name).mkdir(mode=0o700)
    munge = folder / "munge"
    (munge / "key").write_bytes(secrets.token_bytes(1024))
    (munge / "key").chmod(0o400)
    (folder / "slurm.conf").write_text(CONFIG.format(host=socket.gethostname(), folder=folder))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    # The nodes' names are nobody's address; on a cluster they are.
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    files = {"key-file": "key", "socket": "socket", "seed-file": "seed", "log-file": "log"}
    options = [f"--{option}={munge / name}" for option, name in files.items()]
    commands = [
        ["munged", "--foreground", "--force", f"--pid-file={munge}/pid", *options],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "n1"],
        ["slurmd", "-D", "-N", "n2"],
    ]
    daemons = []
    try:
        for command in commands:
            program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
            assert program, f"there is no {command[0]}: apt-get install slurm-wlm munge"
            log = (folder / f"{command[0]}.out").open("ab")
            daemons.append(subprocess.Popen([program, *command[1:]], stdout=log, stderr=log))
            time.sleep(2)
        wait_until(lambda: "idle" in output("sinfo", "--noheader", "--format=%t"))
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "this took too long"
        time.sleep(1)


def train(*words: str) -> str:
    """Return what ``src/train.py`` prints, with the small settings and ``words``."""
    return output(*TRAIN, *SMALL, *words)


def submit(*words: str) -> tuple[str, Path]:
    """Return the job's number and the run's folder of a single run through ``launcher=slurm``."""
    printed = train("launcher=slurm", *words)
    number, folder = re.search(r"job (\d+)", printed), re.search(r"file +(\S+)/slurm", printed)
    assert number, printed
    assert folder, printed
    return number[1], Path(folder[1])


def finish(number: str) -> None:
    """Wait until job ``number`` has left the queue; one that was requeued need not wait."""

    def left() -> bool:
        job = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True)
        if "Reason=BeginTime" in job.stdout:  # SLURM waits two minutes before it starts it again
            subprocess.run(["scontrol", "update", f"jobid={number}", "StartTime=now"], check=False)
        return re.search(r"JobState=(COMPLETED|FAILED|CANCELLED)", job.stdout) is not None

    wait_until(left)


def summary(folder: Path) -> dict[str, object]:
    """Return summary.json of a run."""
    return json.loads((folder / "summary.json").read_text())


def rows(folder: Path) -> int:
    """Return how many rows metrics.csv has so far."""
    table = folder / "metrics.csv"
    return max(len(table.read_text().splitlines()) - 1, 0) if table.is_file() else 0


def differences(one: Path, other: Path) -> int:
    """Return in how many tensors and columns of metrics the ends of two runs differ."""
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other)
    ]
    weights = [state["state_dict"] for state in states]
    tables = [
        pd.read_csv(run / "metrics.csv").filter(regex="loss|top|lr|step") for run in (one, other)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert list(tables[0]) == list(tables[1])
    different = sum(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    return different + sum(not tables[0][name].equals(tables[1][name]) for name in tables[0])


def main(folder: Path) -> None:
    """Run all trials and print what came of them."""
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    results: list[tuple[str, str]] = []

    number, uncut = submit()
    finish(number)
    results.append(("one node, two tasks", str(summary(uncut)["state"])))

    number, two = submit("trainer.num_nodes=2", "trainer.devices=1")
    finish(number)
    results.append(("two nodes, one task each", f"{summary(two)['state']}, "
                    f"{differences(uncut, two)} differences from one node"))  # fmt: skip

    number, cut = submit()
    wait_until(lambda: rows(cut) > 10)
    subprocess.run(["scancel", "--signal=USR1", number], check=True)
    finish(number)
    restarts = (cut / f"slurm-{number}.log").read_text().count(f"Requeueing job {number}")
    results.append(("USR1, requeued", f"{summary(cut)['state']} after {restarts} restart, "
                    f"{differences(uncut, cut)} differences from the uncut run"))  # fmt: skip

    file = work / "own.sh"
    file.write_text(
        "#!/bin/bash\n#SBATCH --ntasks-per-node=2 --requeue --open-mode=append --output=own.log\n"
        f"srun {' '.join([*TRAIN, *SMALL])} resume=auto seed=1\n"
    )
    number = output("sbatch", "--parsable", str(file)).strip()
    own = work / "outputs" / f"slurm-{number}-0"
    wait_until(lambda: rows(own) > 10)
    subprocess.run(["scancel", "--signal=USR1", number], check=True)
    finish(number)
    results.append(("a batch file of one's own, USR1", f"{summary(own)['state']} in {own.name}, "
                    f"{len(list((work / 'outputs').glob('slurm-*')))} folder"))  # fmt: skip

    printed = train("-m", "seed=2,3", "launcher=slurm", "launcher.wait=true", "trainer.devices=1")
    results.append(("a sweep as an array", f"{printed.count('] finished')} finished"))
    print("\n".join(f"{what:<34}{how}" for what, how in results))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="try_slurm_") as temporary:
        base = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).absolute()
        base.mkdir(parents=True, exist_ok=True)
        with cluster(base):
            main(base)
