"""By what evidence a run is said to be running or dead, and how long it took."""

import os
import platform
import subprocess
import sys
import time

import pytest

from fovea import run_lock, runs
from made_runs import write_run

HOLD = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from fovea import run_lock
run_lock.must_take(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("FOVEA_CACHE", "")


def on_this_machine(folder):
    text = (folder / "environment.json").read_text()
    (folder / "environment.json").write_text(text.replace("elsewhere", platform.node()))


def state(folder):
    row = runs.load(folder).iloc[0]
    return row["state"], row["evidence"]


def grow_old(folder, seconds):
    for file in folder.iterdir():
        os.utime(file, (time.time() - seconds,) * 2)


def test_a_run_here_is_running_as_long_as_a_process_holds_its_lock(tmp_path):
    folder = write_run(tmp_path / "run", state="running", seconds=None)
    on_this_machine(folder)
    source = os.path.dirname(os.path.dirname(run_lock.__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), source], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    for _ in range(2):  # a look does not take it, nor write into it
        assert state(folder) == ("running", "its folder is locked by a living process")
        assert run_lock.holder(folder) == f"process {process.pid} on {platform.node()}"
    process.kill()
    process.communicate()
    grow_old(folder, 3 * 3600)
    found, evidence = state(folder)
    assert found == "killed"
    assert "no process holds its lock" in evidence
    assert "3 h ago" in evidence


def test_looking_does_not_give_the_own_lock_away(tmp_path):
    folder = write_run(tmp_path / "run", state="running")
    run_lock.must_take(folder)
    try:
        assert state(folder)[0] == "running"
        look = (
            "import sys, pathlib; sys.path.insert(0, sys.argv[2]); from fovea import run_lock;"
            "print(run_lock.is_taken(pathlib.Path(sys.argv[1])))"
        )
        source = os.path.dirname(os.path.dirname(run_lock.__file__))
        seen = subprocess.run(
            [sys.executable, "-c", look, str(folder), source], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert seen.stdout == "True\n"
    finally:
        run_lock._held.pop(folder.resolve() / run_lock.NAME).close()


def test_elsewhere_the_last_sign_of_life_counts(tmp_path):
    folder = write_run(tmp_path / "run", state="running")
    assert state(folder)[0] == "running"
    grow_old(folder, 5 * 86400)
    assert state(folder) == (
        "unknown", "summary.json says running, on elsewhere; last written 5 days ago",
    )  # fmt: skip
    assert not (folder / run_lock.NAME).exists(), "looking writes nothing"


def test_the_time_of_all_processes_of_a_run(tmp_path):
    folder = write_run(tmp_path / "run", seconds=20.0)
    log = (
        "2026-11-24 10:00:00,123 INFO \nfovea: run\n2026-11-24 10:00:01,000 INFO   data  digits\n"
        "2026-11-24 10:01:40,000 INFO epoch 1/3\n"
        "2026-11-24 11:30:00,000 INFO \nfovea: run\n2026-11-24 11:30:19,000 INFO epoch 3/3\n"
        "Traceback of several\nlines\n"
    )
    (folder / "train.log").write_text(log)
    row = runs.load(folder).iloc[0]
    assert row["duration"] == 20.0, "one process, which has written its time"
    text = (folder / "environment.json").read_text()
    (folder / "environment.json").write_text(text.replace("train.py", "train.py resume=auto"))
    row = runs.load(folder).iloc[0]
    assert row["duration"] == 100 + 20.0
    assert row["seconds"] == 20.0
    started = time.mktime((2026, 11, 24, 10, 0, 0, 0, 0, -1))
    assert row["time"].timestamp() == min(started, 1795521600.0)
    for given in ({"state": "running", "seconds": None}, {"state": "running", "seconds": 99.0}):
        killed = write_run(tmp_path / str(given["seconds"]), **given)
        (killed / "train.log").write_text(log)
        assert runs.load(killed)["duration"].tolist() == [100 + 19]
