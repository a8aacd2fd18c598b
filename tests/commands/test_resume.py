"""Ctrl-C and going on: exit status, checkpoint, what to type, the same weights in the end."""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch

from process import arguments, environment, folder_of, run

RUN = (
    "data.limit_per_class=16", "data.batch_size=32", "trainer.max_epochs=12", "logger=none",
    "trainer.log_every_n_steps=1", "model=timm", "model.name=test_resnet",
)  # fmt: skip


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("uncut")
    return folder_of(run("train", *RUN, cwd=cwd), cwd)


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(a, b):
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    assert a["global_step"] == b["global_step"]


def interrupt(process, after):
    """Press Ctrl-C as soon as ``after`` is printed; return all that was printed."""
    printed = []
    for line in process.stdout:
        printed.append(line)
        if after in line:
            process.send_signal(signal.SIGINT)
            break
    return "".join(printed) + process.stdout.read()


def test_ctrl_c_saves_and_says_how_to_go_on_and_the_end_is_the_same(uncut, tmp_path):
    process = subprocess.Popen(
        arguments("train", *RUN), cwd=tmp_path, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out = interrupt(process, after="epoch  2/12")
    assert process.wait(timeout=120) == 130, out
    assert "Traceback" not in out
    (folder,) = (tmp_path / "outputs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["state"] == "interrupted"
    assert re.search(rf"train\.py resume=\S*{folder.name}", out)
    assert weights(folder)["global_step"] < weights(uncut)["global_step"]

    done = run("train", *RUN, "resume=auto", cwd=tmp_path)
    assert list((tmp_path / "outputs").iterdir()) == [folder], "one folder a run"
    assert folder_of(done, tmp_path) == folder
    assert_same(weights(uncut), weights(folder))
    assert json.loads((folder / "summary.json").read_text())["state"] == "finished"
    cut, whole = (pd.read_csv(f / "metrics.csv") for f in (folder, uncut))
    same = [name for name in whole if not name.startswith("perf/")]
    pd.testing.assert_frame_equal(cut[same], whole[same], check_exact=True)

    again = run("train", *RUN, "resume=auto", cwd=tmp_path)
    assert f"{folder.name} is a finished run of this configuration" in again.stdout


@pytest.mark.slow
def test_a_signal_to_one_of_two_ranks_in_a_validation_ends_both_and_they_go_on(tmp_path):
    words = [
        *RUN, "resume=auto", "trainer=ddp_cpu", "trainer.max_epochs=2",
        "allow_targets=[self_signal]",
        "+callbacks.kill._target_=self_signal.SelfSignal", "+callbacks.kill.name=SIGTERM",
        "+callbacks.kill.hook=on_validation_batch_start", "+callbacks.kill.step=5",
        "+callbacks.kill.rank=1", "data.eval_batch_size=32",
    ]  # fmt: skip
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = run("train", *words, cwd=tmp_path, check=False, **path)
    assert done.returncode == 75, done.stdout + done.stderr
    (folder,) = (p for p in (tmp_path / "outputs").iterdir() if p.is_dir())
    assert json.loads((folder / "summary.json").read_text())["state"] == "interrupted"
    assert weights(folder)["global_step"] == 5
    assert not pd.read_csv(folder / "metrics.csv").get("val/loss", pd.Series()).notna().any()
    done = run("train", *words, cwd=tmp_path, **path)
    assert folder_of(done, tmp_path) == folder
    table = pd.read_csv(folder / "metrics.csv")
    assert table["step"].tolist() == list(range(10))
    assert table["val/loss"].notna().sum() == 2


def test_a_moved_run_with_a_damaged_checkpoint_is_made_longer(uncut, tmp_path):
    folder = shutil.move(shutil.copytree(uncut, tmp_path / "copy"), tmp_path / "moved")
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    done = run("train", f"resume={folder}", "trainer.max_epochs=13", cwd=tmp_path)
    assert "trainer.max_epochs: 12 -> 13" in done.stdout
    assert f"{last} is damaged: its end is missing. last-1.ckpt is used" in done.stdout
    assert pd.read_csv(folder / "metrics.csv")["step"].tolist() == list(range(65))
    best = json.loads((folder / "summary.json").read_text())["best_checkpoint"]
    assert best == str(folder / "checkpoints" / "best.ckpt")
    assert not list(tmp_path.glob("outputs/*")), "nothing is written elsewhere"
    assert not (tmp_path / "copy").exists()


def test_overrides_that_would_break_the_state_are_refused(uncut, tmp_path):
    before = (uncut / "metrics.csv").read_bytes()
    done = run("train", f"resume={uncut}", "model=alexnet", "seed=3", cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "model" in done.stderr
    assert "seed" in done.stderr
    assert "model.weights=" in done.stderr
    assert (uncut / "metrics.csv").read_bytes() == before, "nothing earned is lost"


def test_resume_of_a_foreign_checkpoint_names_the_way(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    done = run("train", "resume=foreign.ckpt", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "model.weights=" in done.stderr
