"""The range test gives the run its rate and nothing else."""

import json

import pandas as pd
import pytest
import torch
import yaml

from fovea.errors import FoveaError
from fovea.experiment import compose
from fovea.models import Backbone
from fovea.tuning import tune_lr
from process import folder_of, run

TINY = (
    "model=timm",
    "model.name=test_resnet",
    "data.limit_per_class=64",
    "data.batch_size=32",
    "trainer.max_epochs=2",
    "logger=none",
)


def weights(folder):
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"], checkpoint["optimizer_states"][0]["state"]


def test_the_run_is_the_one_that_was_started_with_that_rate(tmp_path):
    tuned = run("train", *TINY, "tune.lr=true", cwd=tmp_path)
    folder = folder_of(tuned, tmp_path)
    found = json.loads((folder / "tune" / "learning_rate.json").read_text())
    assert len(found["lr"]) == len(found["loss"]) > 20
    assert 1e-6 <= found["suggestion"] <= 1
    assert (folder / "tune" / "learning_rate.png").stat().st_size > 5000
    assert sorted(p.name for p in (folder / "tune").iterdir()) == [
        "learning_rate.json",
        "learning_rate.png",
    ]
    assert f"tune.lr: optimizer.lr 0.002 -> {found['suggestion']:g}" in tuned.stdout
    assert "Finding" not in tuned.stderr
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == found["suggestion"]
    words = yaml.safe_load((folder / "overrides.yaml").read_text())
    assert "tune.lr=true" in words
    assert not [word for word in words if word.startswith("optimizer.lr")]

    typed = run("train", *TINY, f"optimizer.lr={found['suggestion']}", cwd=tmp_path)
    other = folder_of(typed, tmp_path)
    for one, two in zip(weights(folder), weights(other), strict=True):
        pairs = [(one, two)] if isinstance(next(iter(one.values())), torch.Tensor) else [
            (one[key], two[key]) for key in one
        ]  # fmt: skip
        for a, b in pairs:
            assert a.keys() == b.keys()
            assert all(torch.equal(a[name], b[name]) for name in a)
    tables = [pd.read_csv(f / "metrics.csv").filter(regex="^(train|val)/") for f in (folder, other)]
    pd.testing.assert_frame_equal(*tables)

    longer = run("train", f"resume={folder}", "trainer.max_epochs=3", cwd=tmp_path)
    assert "tune.lr" not in longer.stdout
    assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"] == config["optimizer"]
    refused = run("train", f"resume={other}", "tune.lr=true", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "tune.lr (the run has False)" in refused.stderr


def test_it_accumulates_as_much_as_fits(tmp_path, monkeypatch):
    words = (*TINY, "tune.steps=20", "trainer.accumulate_grad_batches=auto")
    monkeypatch.chdir(tmp_path)
    seen = limit_memory(monkeypatch, 8)
    cfg = compose([*words])
    tune_lr(cfg, tmp_path)
    assert max(seen) == 8
    assert cfg.trainer.accumulate_grad_batches == "auto", "the run finds it by itself"
    assert 0 < cfg.optimizer.lr < 1


def limit_memory(monkeypatch, images):
    """Let batches of more than ``images`` not fit; return the sizes of those that did."""
    real, seen = Backbone.forward, []

    def forward(backbone, batch):
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        seen.append(len(batch))
        return real(backbone, batch)

    monkeypatch.setattr(Backbone, "forward", forward)
    return seen


@pytest.mark.slow
def test_two_ranks_train_with_the_rate_that_one_device_finds(tmp_path):
    words = (*TINY, "trainer=ddp_cpu", "tune.lr=true", "trainer.max_epochs=1", "tune.steps=20")
    two = folder_of(run("train", *words, cwd=tmp_path), tmp_path)
    one = folder_of(run("train", *words, "trainer=cpu", cwd=tmp_path), tmp_path)
    found = [json.loads((f / "tune" / "learning_rate.json").read_text()) for f in (one, two)]
    assert len(found[0]["loss"]) == len(found[1]["loss"]) == 20
    config = yaml.safe_load((two / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == found[1]["suggestion"]


def test_what_stands_in_the_folder_is_taken(tmp_path):
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "learning_rate.json").write_text('{"suggestion": 0.0123}')
    cfg = compose(["tune.lr=true"])
    tune_lr(cfg, tmp_path)
    assert cfg.optimizer.lr == 0.0123


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tune.steps=19"], "needs 20 steps, and there are 19"),
        (["trainer.max_epochs=1"], "needs 20 steps, and there are 17"),
        (["task.layer_decay=0.75"], "all parameters the same rate"),
    ],
)
def test_what_it_cannot_do_is_said(tmp_path, words, expected):
    with pytest.raises(FoveaError, match=expected):
        tune_lr(compose(["model=timm", "model.name=test_resnet", *words]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_range_rises():
    with pytest.raises(FoveaError, match=r"tune\.lr_max=1e-07: expected more than tune\.lr_min"):
        compose(["tune.lr_max=1e-7"])
