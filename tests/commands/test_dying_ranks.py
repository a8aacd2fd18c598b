"""A rank that dies takes the others with it, and says so; none is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from process import SMALL, environment

DRIVER = Path(__file__).parents[1] / "faulty_train.py"
RUN = (
    *SMALL, "data.num_workers=0", "model=timm", "model.name=test_resnet", "logger=none",
    "trainer=ddp_cpu",
)  # fmt: skip


def run_faulty(fault, cwd, *words):
    return subprocess.run(
        [sys.executable, str(DRIVER), *RUN, *words], cwd=cwd, text=True, capture_output=True,
        env=environment(FAULT=fault), stdin=subprocess.DEVNULL, timeout=400,
    )  # fmt: skip


def left_behind(cwd):
    """Return the processes that still work in ``cwd``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")) == cwd.resolve():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # ended meanwhile, or somebody else's
    return found


def wait_until_none_is_left(cwd):
    deadline = time.monotonic() + 60
    while left := left_behind(cwd):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.mark.slow
def test_ranks_agree_on_a_skipped_step_and_a_killed_one_is_named_with_the_way_on(tmp_path):
    done = run_faulty(
        "nan_loss rank=1 steps=2,6; kill rank=1 steps=8", tmp_path, "on_nan=skip",
        "trainer.log_every_n_steps=1", "callbacks=[default,ema]",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "at step 2: left out (1 so far)" in said
    (folder,) = tmp_path.glob("outputs/*/nan")
    report = json.loads((folder / "step_6.json").read_text())
    assert [row["rank"] for row in report["micro_batches"]] == [0, 1]
    assert [row["loss"] == "nan" for row in report["micro_batches"]] == [False, True]
    for row in report["micro_batches"]:
        batch = torch.load(folder / f"step_6_rank{row['rank']}.pt", weights_only=True)
        assert len(row["files"]) == len(batch["images"]) == 16

    assert re.search(r"rank 1 \(pid \d+\) was killed by signal 9 \(SIGKILL\).*dmesg", said)
    assert "Traceback" not in said, "what the others met is a consequence"
    assert re.search(r"To go on: .*resume=", said)
    wait_until_none_is_left(tmp_path)
    (summary,) = tmp_path.glob("outputs/*/summary.json")
    assert json.loads(summary.read_text())["state"] == "failed"
    assert "rank 1" in json.loads(summary.read_text())["error"]


@pytest.mark.slow
def test_a_rank_that_raises_shows_its_own_traceback_and_no_other(tmp_path):
    done = run_faulty("raise rank=1 steps=6", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stderr + done.stdout
    assert said.count("[rank1]: ValueError: the fault that was asked for") == 1
    assert "rank 1 (pid" in said
    assert not re.search("gloo|by peer", said), "what the others met is a consequence"
    wait_until_none_is_left(tmp_path)


@pytest.mark.slow
def test_none_is_left_when_rank_zero_is_killed(tmp_path):
    done = run_faulty("kill rank=0 steps=6", tmp_path)
    assert done.returncode == -signal.SIGKILL
    wait_until_none_is_left(tmp_path)
