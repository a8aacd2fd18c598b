"""Several processes and sweeps: one folder a run, the same numbers, each job once."""

import json

import pandas as pd
import pytest
import torch
import yaml

from process import SMALL, folder_of, run


@pytest.mark.slow
def test_two_ranks_accumulation_and_one_process_are_the_same_optimisation(tmp_path):
    # A network without BatchNorm and dropout: BatchNorm sees the batch of its own device.
    words = [
        *SMALL, "model=timm", "model.name=test_vit", "optimizer.lr=0.01", "augment=none",
        "logger=none", "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    ways = {
        "one": [],
        "accumulated": ["trainer.accumulate_grad_batches=2"],
        "two": ["trainer=ddp_cpu"],
        "four": ["trainer=ddp_cpu", "trainer.devices=4"],
    }
    losses = {}
    for name, extra in ways.items():
        cwd = tmp_path / name
        cwd.mkdir()
        done = run("train", *words, *extra, cwd=cwd)
        assert len(list((cwd / "outputs").iterdir())) == 1, "one folder, whatever the ranks"
        table = pd.read_csv(folder_of(done, cwd) / "metrics.csv")
        losses[name] = table["train/loss"].dropna().to_list()
        scores = table["val/top1"].dropna().to_list()
        losses[name] += scores
    assert len(losses["one"]) == 12
    for name in ("accumulated", "two", "four"):
        assert losses[name] == pytest.approx(losses["one"], rel=2e-4), name


def test_a_sweep_runs_each_job_once_in_its_own_folder_and_group(tmp_path):
    done = run("train", "-m", *SMALL, "trainer.max_epochs=1", "optimizer.lr=0.01,0.1", cwd=tmp_path)
    (sweep,) = (tmp_path / "outputs").iterdir()
    jobs = sorted(p for p in sweep.iterdir() if p.is_dir())
    assert [j.name for j in jobs] == ["0", "1"]
    for job, lr in zip(jobs, (0.01, 0.1), strict=True):
        config = yaml.safe_load((job / "config.yaml").read_text())
        assert config["optimizer"]["lr"] == lr
        assert config["group"] == sweep.name
        assert (job / "checkpoints" / "best.ckpt").is_file()
        assert len(list((job / "wandb").glob("offline-run-*"))) == 1
    assert done.returncode == 0


@pytest.mark.slow
def test_a_sweep_of_two_jobs_with_two_ranks_each(tmp_path):
    run(
        "train", "-m", *SMALL, "trainer=ddp_cpu", "trainer.max_epochs=1", "seed=1,2",
        "logger=none", cwd=tmp_path,
    )  # fmt: skip
    (sweep,) = (tmp_path / "outputs").iterdir()
    jobs = sorted(p.name for p in sweep.iterdir() if p.is_dir())
    assert jobs == ["0", "1"]
    for job in jobs:
        assert json.loads((sweep / job / "summary.json").read_text())["state"] == "finished"


def test_a_failing_job_does_not_stop_the_others_and_is_named(tmp_path):
    done = run(
        "train", "-m", *SMALL, "trainer.max_epochs=1", "logger=none",
        "model.weights=nowhere.pth,null", cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nowhere.pth" in done.stdout, "the table at the end says why"
    (sweep,) = (tmp_path / "outputs").iterdir()
    assert json.loads((sweep / "0" / "summary.json").read_text())["state"] == "failed"
    assert json.loads((sweep / "1" / "summary.json").read_text())["state"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["head_only", "gradual", "lp_ft"])
def test_fine_tuning_from_a_checkpoint_with_every_freeze(trained, tmp_path, freeze):
    folder, _ = trained
    done = run(
        "train", *SMALL, "trainer.max_epochs=4", "trainer=ddp_cpu", f"freeze={freeze}",
        f"model.weights={folder}", "optimizer=adamw", "logger=none", cwd=tmp_path,
    )  # fmt: skip
    before = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    after = torch.load(folder_of(done, tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)[
        "state_dict"
    ]
    moved = {n for n in before if before[n].is_floating_point()
             and not torch.equal(before[n], after[n])}  # fmt: skip
    assert any(n.startswith("head.") for n in moved)
    assert any(n.startswith("backbone.") for n in moved) == (freeze != "head_only")
