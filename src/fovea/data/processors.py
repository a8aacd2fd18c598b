"""The processors that a rank may really use, and how many workers to load with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_WORKERS = 16
"""Sixteen workers read some ten thousand photos a second, more than one GPU trains on; each costs
memory and time to start."""

_MEMBERSHIP = Path("/proc/self/cgroup")
_HIERARCHIES = Path("/sys/fs/cgroup")


def processor_share(local_ranks: int) -> int:
    """Return the workers that suit each of ``local_ranks`` processes of this machine, 1 to 16."""
    return min(MAX_WORKERS, rank_processors(local_ranks))


def rank_processors(local_ranks: int, environ: Mapping[str, str] = os.environ) -> int:
    """Return the processors that each of ``local_ranks`` processes of this machine may use.

    What SLURM gives to a task is divided only among the ranks inside that task: with ``srun`` and
    one task a rank it is the rank's own already.
    """
    sharing = max(1, local_ranks // _tasks_here(environ))
    return max(1, available_processors(environ) // sharing)


def available_processors(
    environ: Mapping[str, str] = os.environ,
    membership: Path = _MEMBERSHIP,
    hierarchies: Path = _HIERARCHIES,
) -> int:
    """Return the processors this process and those it starts may use together, at least 1.

    The least of the processors it may run on, the quotas of the cgroups it is in, rounded down,
    and what SLURM granted. (``joblib.cpu_count`` reads the quota of the topmost cgroup alone: right
    inside a container, but not for a limit on a systemd slice or a SLURM job.)

    Args:
        environ: environment variables.
        membership: file that lists the cgroups of this process.
        hierarchies: folder where the cgroups are mounted.
    """
    quotas = _quotas(membership, hierarchies)
    return max(1, math.floor(min(_processors(), _granted(environ), *quotas)))


def advice(num_workers: int, processors: int, decode: str, in_memory: bool) -> str:
    """Return what to set when training waits for its data, as the middle of a sentence.

    Args:
        num_workers: of a loader.
        processors: that this rank may use, see `rank_processors`.
        decode: the setting ``data.decode``.
        in_memory: whether all images are in memory already.
    """
    if in_memory:
        return "the images are in memory, what is done to each costs the time: augment=basic"
    more_workers = f"more workers for the processors there are: data.num_workers={processors}"
    ways = [more_workers] if num_workers < processors else []
    if decode == "pil":
        ways.append("the faster decoder: data.decode=auto")
    if not ways:
        ways = [
            "smaller images, shrunk once and stored (python scripts/prepare_shards.py --help, "
            "then data=shards)",
            "for a set that fits, data.in_memory=true",
        ]
    return "; ".join(ways)


def _processors() -> int:
    """Return what the affinity of this process, or a batch system through it, allows."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def _quotas(membership: Path, hierarchies: Path) -> Iterator[float]:
    """Yield the processors that each cgroup of this process allows; a parent's limit holds too."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, one hierarchy for all
            top = hierarchies
        elif "cpu" in controllers.split(","):
            top = hierarchies / "cpu"
        else:
            continue
        # In a container the path may be the host's: then nothing is there, but the top is.
        group = top / path.lstrip("/")
        while group != top:
            yield _quota(group)
            group = group.parent
        yield _quota(top)


def _quota(group: Path) -> float:
    """Return the processors' worth of time that ``group`` may use, infinite without a limit."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such group; "max"; an empty file, as some kernels have
        return math.inf


def _granted(environ: Mapping[str, str]) -> float:
    """Return the processors SLURM gave to this task, or outside a step to the job on this node."""
    on_node = _number(environ, "SLURM_CPUS_ON_NODE")
    per_task = _number(environ, "SLURM_CPUS_PER_TASK")
    if "SLURM_STEP_NUM_TASKS" not in environ:
        return on_node or per_task or math.inf
    return per_task or on_node / _tasks_here(environ) or math.inf


def _tasks_here(environ: Mapping[str, str]) -> int:
    """Return the tasks that ``srun`` started on each node, 1 for whatever it did not start."""
    tasks = _number(environ, "SLURM_STEP_NUM_TASKS")
    nodes = _number(environ, "SLURM_STEP_NUM_NODES")
    return math.ceil(max(1, tasks) / max(1, nodes))


def _number(environ: Mapping[str, str], name: str) -> int:
    """Return a whole number of the environment, 0 where it is missing or none."""
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else 0
