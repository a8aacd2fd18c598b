import os

import pytest

from fovea.data import processors
from fovea.data.processors import advice, available_processors, processor_share, rank_processors


@pytest.fixture
def many(monkeypatch):
    """A machine of 64 processors, all of which this process may run on."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


def counted(folder, membership, limits, environ=None):
    """Return the processors of a process with these cgroups and files below /sys/fs/cgroup."""
    (folder / "membership").write_text(membership)
    for path, text in limits.items():
        file = folder / "cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return available_processors(environ or {}, folder / "membership", folder / "cgroup")


SLICE = "user.slice/user-1000.slice"


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        # A container sees its own group as the top.
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "99900000 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "\n"}, 64),
        ("0::/\n", {}, 64),
        # The least of a group's limit and its parents'; the root has no file.
        (f"0::/{SLICE}/a.scope\n", {f"{SLICE}/cpu.max": "300000 100000\n"}, 3),
        (
            f"0::/{SLICE}/a.scope\n",
            {
                f"{SLICE}/a.scope/cpu.max": "max 100000\n",
                f"{SLICE}/cpu.max": "800000 100000\n",
                "user.slice/cpu.max": "600000 100000\n",
                "system.slice/cpu.max": "100000 100000\n",
            },
            6,
        ),
        # A path of the host's, or one above the own name space, where the container's is mounted.
        ("0::/kubepods/pod1/abc\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/../../other\n", {"cpu.max": "200000 100000\n"}, 2),
        # Version 1.
        (
            "7:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "500000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            5,
        ),
        (
            "4:cpuacct,cpu:/job_7/step_0\n",
            {
                "cpu/job_7/cpu.cfs_quota_us": "150000\n",
                "cpu/job_7/cpu.cfs_period_us": "50000\n",
                "cpu/job_7/step_0/cpu.cfs_quota_us": "-1\n",
                "cpu/job_7/step_0/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("5:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, 64),
    ],
)
def test_the_quota_of_a_container_slice_or_job(tmp_path, many, membership, limits, expected):
    assert counted(tmp_path, membership, limits) == expected


def test_processors_this_process_may_not_run_on_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert counted(tmp_path, "0::/\n", {"cpu.max": "800000 100000"}) == 3


def test_without_linux_all_processors_count(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert available_processors({}, tmp_path / "none", tmp_path) == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_processors({}, tmp_path / "none", tmp_path) == 1


def test_this_machine_has_some():
    assert 1 <= available_processors() <= (os.cpu_count() or 1)


def step(tasks, nodes, **more):
    """Return what ``srun`` sets for a step of so many tasks."""
    return {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": str(nodes), **more}


@pytest.mark.parametrize(
    ("environ", "affinity", "local_ranks", "expected"),
    [
        # One task a rank, and each bound to its own processors: they are not divided again.
        (step(4, 1, SLURM_CPUS_PER_TASK="8"), 8, 4, 8),
        # The same without binding: the affinity is the node's.
        (step(4, 1, SLURM_CPUS_PER_TASK="8"), 64, 4, 8),
        (step(16, 4, SLURM_CPUS_PER_TASK="8"), 64, 4, 8),
        # Not asked for by task: a share of what the step has here.
        (step(4, 1, SLURM_CPUS_ON_NODE="32"), 64, 4, 8),
        # One task on each node that starts its ranks itself.
        (step(2, 2, SLURM_CPUS_PER_TASK="32"), 32, 4, 8),
        (step(1, 1, SLURM_CPUS_PER_TASK="32", SLURM_CPUS_ON_NODE="64"), 64, 8, 4),
        # In a batch script without srun the whole job's share of the node is at hand.
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4"}, 64, 4, 4),
        ({"SLURM_CPUS_PER_TASK": "6"}, 64, 1, 6),
        # A binding tighter than what the variables promise.
        (step(4, 1, SLURM_CPUS_PER_TASK="8"), 1, 4, 1),
        # Nothing that is a number.
        ({"SLURM_CPUS_ON_NODE": "", "SLURM_CPUS_PER_TASK": "many"}, 64, 4, 16),
        # No SLURM.
        ({}, 64, 1, 64),
        ({}, 64, 4, 16),
        ({}, 64, 0, 64),
        ({}, 2, 8, 1),
    ],
)
def test_the_share_of_a_rank(monkeypatch, environ, affinity, local_ranks, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    monkeypatch.setattr(processors, "_quotas", lambda *paths: [])
    assert rank_processors(local_ranks, environ) == expected


def test_workers_are_as_many_as_processors_up_to_sixteen(monkeypatch):
    monkeypatch.setattr(processors, "available_processors", lambda environ: 64)
    assert [processor_share(ranks) for ranks in (1, 4, 8, 64, 100)] == [16, 16, 8, 1, 1]


@pytest.mark.parametrize(
    ("situation", "named", "not_named"),
    [
        ((2, 8, "auto", False), ["data.num_workers=8"], ["decode", "shards"]),
        ((0, 2, "pil", False), ["data.num_workers=2", "data.decode=auto"], ["shards"]),
        ((8, 8, "pil", False), ["data.decode=auto"], ["num_workers", "shards"]),
        ((8, 8, "auto", False), ["data=shards", "data.in_memory=true"], ["num_workers"]),
        ((9, 8, "gpu", False), ["data=shards", "data.in_memory=true"], ["num_workers"]),
        ((0, 8, "auto", True), ["augment=basic"], ["num_workers", "in_memory=true"]),
    ],
)
def test_advice_names_the_setting_that_helps(situation, named, not_named):
    text = advice(*situation)
    assert all(setting in text for setting in named)
    assert not any(setting in text for setting in not_named)
