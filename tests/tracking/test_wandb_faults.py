"""W&B, its server and its process fail: the run goes on, and no row is lost or comes twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb

from disks import fill
from fovea.errors import FoveaError
from fovea.tracking import MetricsCSV, WandbRun, wandb_logger
from fovea.tracking.wandb_files import history_steps, next_step, parts
from fovea.tracking.wandb_start import SETTINGS
from tracking.wandb_server import WandbServer

KEY = "0123456789" * 4
SRC = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def account(monkeypatch, tmp_path):
    """A key, a home, and a server that works."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    server = WandbServer()
    for name, value in {
        "HOME": tmp_path,
        "NETRC": tmp_path / "netrc",
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": KEY,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fovea.tracking.wandb_run.LOOK_EVERY_S", 0.0)
    monkeypatch.setitem(SETTINGS, "x_file_stream_transmit_interval", 1)
    wandb.teardown()
    yield server
    server.close()
    wandb.teardown()


class Run:
    """One process's share of a run: the table and W&B, both told the same, as the trainer does."""

    def __init__(self, folder: Path, start: int = 0, **options) -> None:
        self.table = MetricsCSV(folder, start)
        options = {"finish_timeout_s": 2.0, "timeout_s": 2.0} | options
        self.wandb: WandbRun = wandb_logger(folder, run_id="a-run", **options)

    def log(self, *steps: int) -> None:
        for step in steps:
            for metrics in ({"train/loss": 1 / (step + 1), "epoch": step // 4}, {"lr": 0.1}):
                self.table.log_metrics(metrics, step)
                self.wandb.log_metrics(metrics, step)


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def sync(run: WandbRun) -> None:
    """Type what the run says."""
    assert run.sync_command
    assert run.sync_command.startswith("wandb sync ")
    wandb.teardown()
    script = [sys.executable, "-m", "wandb", *run.sync_command.split()[1:]]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def warnings(caplog) -> list[str]:
    return [
        r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "fovea" in r.name
    ]


def test_a_run_that_goes_on_online_leaves_no_gap_and_repeats_nothing(account, tmp_path) -> None:
    first = Run(tmp_path)
    first.log(*range(6))
    first.wandb.finish({})
    assert first.wandb.mode == "online"
    assert account.steps("a-run") == [0, 1, 2, 3, 4, 5]
    del account.rows["a-run"][2:]  # as if the machine had died before these were sent
    second = Run(tmp_path, start=5)
    second.log(*range(5, 9))
    second.wandb.finish({"best": 0.5})
    third = Run(tmp_path, start=7)  # from a checkpoint that is older than what was logged
    third.log(*range(7, 10))
    third.wandb.finish({"best": 0.5})
    assert account.steps("a-run") == list(range(10))
    assert [row["train/loss"] for row in account.rows["a-run"]] == [1 / (n + 1) for n in range(10)]
    assert all(row["lr"] == 0.1 for row in account.rows["a-run"])
    assert account.summaries["a-run"]["best"] == 0.5


KILLED = """
import os, signal, sys, time
sys.path += [sys.argv[2]]
from tracking.test_wandb_faults import Run
from pathlib import Path
run = Run(Path(sys.argv[1]), mode="offline")
run.log(*range(7))
time.sleep(2)
run.log(7)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_offline_parts_around_a_kill_are_synced_to_one_whole_run(account, tmp_path, caplog) -> None:
    script = [sys.executable, "-c", KILLED, tmp_path, Path(__file__).parents[1]]
    killed = subprocess.run(script, env={**os.environ, "PYTHONPATH": str(SRC)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    (part,) = parts(tmp_path / "wandb", "a-run")
    kept = history_steps(part)
    assert kept == list(range(len(kept)))
    assert 5 <= len(kept) <= 7
    second = Run(tmp_path, start=4)
    second.log(*range(4, 10))  # online by itself, but the first part is not uploaded
    second.wandb.finish({})
    assert second.wandb.mode == "offline"
    assert "earlier part" in warnings(caplog)[0]
    wait_until(lambda: next_step(tmp_path / "wandb", "a-run") == 10)
    sync(second.wandb)
    assert account.steps("a-run") == list(range(10))
    third = Run(tmp_path, start=10)
    third.log(10, 11)
    third.wandb.finish({})
    assert third.wandb.mode == "online"
    assert account.steps("a-run") == list(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [401, "hang"])
def test_a_server_that_fails_in_the_middle(account, tmp_path, caplog, fault) -> None:
    run = Run(tmp_path)
    run.log(0, 1, 2, 3)
    wait_until(lambda: len(account.steps("a-run")) >= 2)
    account.fault = fault
    began = time.monotonic()
    for step in range(4, 30):
        run.log(step)
    assert time.monotonic() - began < 10
    run.wandb.finish({"best": 0.25})
    assert run.wandb.mode == "offline"
    assert len(warnings(caplog)) == 1
    assert run.wandb.sync_command in warnings(caplog)[0]
    account.fault = None
    sync(run.wandb)
    assert account.steps("a-run") == list(range(30))
    assert account.summaries["a-run"]["best"] == 0.25


def wandb_processes() -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.slow
def test_the_process_of_wandb_is_killed(account, tmp_path, caplog) -> None:
    run = Run(tmp_path, mode="offline")
    run.log(0, 1, 2)
    (process,) = wandb_processes()
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not wandb_processes() or run.log(3) or len(warnings(caplog)))
    run.log(*range(4, 8))
    run.wandb.finish({"best": 0.125})
    assert len(warnings(caplog)) == 1
    sync(run.wandb)
    assert account.steps("a-run") == list(range(8))
    assert account.summaries["a-run"]["best"] == 0.125


@pytest.mark.slow
def test_what_a_full_disk_keeps_out_is_written_when_there_is_room(
    account, small_disk, caplog
) -> None:
    run = Run(small_disk, mode="offline")
    run.log(0, 1, 2)
    ballast = fill(small_disk)
    end = 3
    while not warnings(caplog)[1:]:  # of the table, of W&B
        run.log(end)
        end += 1
        time.sleep(0.01)
    ballast.unlink()
    run.log(end)
    run.table.finalize("success")
    run.wandb.finish({})
    assert all("no space left on device" in line.lower() for line in warnings(caplog))
    assert len(warnings(caplog)) == 3  # of the table, of W&B's file, and what to type
    sync(run.wandb)
    assert account.steps("a-run") == list(range(end + 1))


def test_silence_is_said_once(account, tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("fovea.tracking.wandb_run.SILENCE_S", 0.2)
    run = Run(tmp_path, finish_timeout_s=30.0)
    run.log(0, 1)
    account.fault = 500
    end = 2
    while not warnings(caplog):
        run.log(end)
        end += 1
        time.sleep(0.1)
    for step in range(end, end + 5):
        run.log(step)
    assert len(warnings(caplog)) == 1
    assert "HTTP 500" in warnings(caplog)[0]
    account.fault = None
    run.wandb.finish({})
    assert run.wandb.mode == "online"
    assert account.steps("a-run") == list(range(end + 5))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"project": "a/b"}, r"logger\.wandb\.project=a/b"),
        ({"entity": "who?"}, r"logger\.wandb\.entity=who\?"),
        ({"tags": ["x" * 65]}, "tags="),
    ],
)
def test_names_that_wandb_refuses_are_told_at_once(tmp_path, options, told) -> None:
    with pytest.raises(FoveaError, match=told):
        wandb_logger(tmp_path, **options)


def test_a_key_of_the_wrong_length_is_told_at_once(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tooshort")
    wandb_logger(tmp_path)
    assert "WANDB_API_KEY cannot be a key" in caplog.text
    assert "tooshort" not in caplog.text
