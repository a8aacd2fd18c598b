"""The drill itself: a few kills are survived, and a bit that differs would be seen."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from process import ROOT, environment

sys.path.insert(0, str(ROOT / "scripts"))
from drill_compare import differences


@pytest.mark.slow
def test_a_short_drill_survives_and_counts_its_kills():
    script = str(ROOT / "scripts" / "kill_drill.py")
    done = subprocess.run(
        [sys.executable, script, "--kills=2", "--seed=1", "--jobs=1", "--scenario", "transfer"],
        env=environment(), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = re.findall(r"^transfer +(\d.*)$", done.stdout, flags=re.M)
    runs, kills, sigkill, sigterm, _, restarts, _, different = map(int, row.split())
    assert runs >= 1
    assert kills == sigkill + sigterm == restarts == 2
    assert different == 0


CHECKPOINT = {
    "state_dict": {"weight": torch.tensor([1.0, 2.0])},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.tensor([0.5])}}}],
    "loops": {"fit_loop": {"epoch_loop.batch_progress": {"total": {"ready": 3}}}},
    "global_step": 3,
}
TABLE = "epoch,step,train/loss,perf/images_per_second\n0,2,0.5,{speed}\n"


def write_run(folder: Path, checkpoint, table, objective=0.25):
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("last.ckpt", "best.ckpt"):
        torch.save(checkpoint, folder / "checkpoints" / name)
    (folder / "metrics.csv").write_text(table)
    summary = {"state": "finished", "objective": objective, "epochs": 1, "metrics": {"a": 1.0}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def change_weight(checkpoint):
    checkpoint["state_dict"]["weight"][1] += 2**-22


def change_moment(checkpoint):
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].neg_().mul_(-1).sub_(2**-24)


def change_count(checkpoint):
    checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] = 4


@pytest.mark.parametrize("change", [change_weight, change_moment, change_count])
def test_one_bit_of_a_checkpoint_is_a_difference(tmp_path, change):
    changed = copy.deepcopy(CHECKPOINT)
    change(changed)
    one = write_run(tmp_path / "one", CHECKPOINT, TABLE.format(speed=10))
    assert differences(one, write_run(tmp_path / "two", changed, TABLE.format(speed=10)))


def test_only_the_speed_may_differ(tmp_path):
    one = write_run(tmp_path / "one", CHECKPOINT, TABLE.format(speed=10))
    two = write_run(tmp_path / "two", CHECKPOINT, TABLE.format(speed=99))
    assert differences(one, two) == []
    gap = TABLE.format(speed=10).rsplit("0,2", 1)[0]
    assert differences(one, write_run(tmp_path / "gap", CHECKPOINT, gap))
    doubled = TABLE.format(speed=10) + "0,2,0.5,10\n"
    assert differences(one, write_run(tmp_path / "doubled", CHECKPOINT, doubled))
    other = write_run(tmp_path / "other", CHECKPOINT, TABLE.format(speed=10), objective=0.26)
    assert differences(one, other)
