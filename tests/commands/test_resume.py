"""Ctrl-C and going on: exit status, checkpoint, what to type, the same weights in the end."""

import json
import re
import signal
import subprocess
import time

import pandas as pd
import pytest
import torch

from process import arguments, environment, folder_of, run

RUN = (
    "data.limit_per_class=16", "data.batch_size=32", "trainer.max_epochs=5", "logger=none",
    "trainer.log_every_n_steps=1",
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


def interrupt(process, after, log):
    """Press Ctrl-C once ``after`` was printed; return all that was printed."""
    printed = []
    for line in process.stdout:
        printed.append(line)
        if after in line:
            time.sleep(log)
            process.send_signal(signal.SIGINT)
            break
    return "".join(printed) + process.stdout.read()


@pytest.mark.parametrize("delay", [0.0, 0.45])
def test_ctrl_c_saves_and_says_how_to_go_on_and_the_end_is_the_same(uncut, tmp_path, delay):
    process = subprocess.Popen(
        arguments("train", *RUN), cwd=tmp_path, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out = interrupt(process, after="epoch 2/5", log=delay)
    assert process.wait(timeout=120) == 130, out
    assert "Traceback" not in out
    (folder,) = (tmp_path / "outputs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["state"] == "interrupted"
    assert re.search(rf"train\.py resume=\S*{folder.name}", out)
    assert weights(folder)["global_step"] < weights(uncut)["global_step"]

    done = run("train", f"resume=outputs/{folder.name}", cwd=tmp_path)
    assert list((tmp_path / "outputs").iterdir()) == [folder], "one folder a run"
    assert folder_of(done, tmp_path) == folder
    assert_same(weights(uncut), weights(folder))
    assert json.loads((folder / "summary.json").read_text())["state"] == "finished"
    cut, whole = (pd.read_csv(f / "metrics.csv") for f in (folder, uncut))
    for column in ("train/loss", "val/top1"):
        pd.testing.assert_series_equal(
            cut.groupby("step")[column].first().dropna(),
            whole.groupby("step")[column].first().dropna(), rtol=1e-6,
        )  # fmt: skip
    assert not cut.dropna(subset=["val/top1"])["step"].duplicated().any()


def test_a_finished_run_can_be_made_longer_and_shows_what_changed(tmp_path):
    first = run("train", *RUN, "trainer.max_epochs=2", cwd=tmp_path)
    folder = folder_of(first, tmp_path)
    done = run("train", f"resume={folder}", "trainer.max_epochs=3", cwd=tmp_path)
    assert "trainer.max_epochs: 2 -> 3" in done.stdout
    assert pd.read_csv(folder / "metrics.csv")["epoch"].max() == 2


@pytest.mark.parametrize(
    "word",
    ["model=alexnet", "optimizer.lr=0.5", "data.batch_size=16", "freeze=head_only", "seed=3"],
)
def test_overrides_that_would_break_the_state_are_refused(uncut, tmp_path, word):
    before = (uncut / "metrics.csv").read_bytes()
    done = run("train", f"resume={uncut}", word, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert word.split("=")[0] in done.stderr
    assert "model.weights=" in done.stderr
    assert (uncut / "metrics.csv").read_bytes() == before, "nothing earned is lost"


def test_resume_of_a_foreign_checkpoint_names_the_way(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    done = run("train", "resume=foreign.ckpt", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "model.weights=" in done.stderr
