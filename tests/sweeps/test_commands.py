"""A study as a user runs it: killed, typed again, pruned, on two ranks."""

import json
import os
import re
import signal
import subprocess
import time

import optuna
import pandas as pd
import pytest

import fovea.runs
from fovea.sweeps.outcomes import Outcome
from fovea.sweeps.sampling import Settings
from fovea.sweeps.study import Trials, open_study
from process import SMALL, arguments, environment, run

WORDS = (
    "-m", "sweep=lr_wd", "sweep.name=killed", "sweep.n_trials=2", "sweep.startup_trials=1",
    "sweep.warmup_epochs=2", *SMALL, "trainer.max_epochs=4", "trainer=ddp_cpu",
    "trainer.devices=2", "model=timm", "model.name=test_resnet.r160_in1k",
)  # fmt: skip


def a_study_with_one_very_good_trial(folder):
    settings = Settings(2, "tpe", "median", {"val/loss": "min"}, 0, 1, 2, 4)
    trials = Trials(folder, settings, lambda number: [])
    claim = trials.claim()
    for epoch in range(1, 5):
        claim.trial.report(1e-6, epoch)
    trials.finish(claim, Outcome("finished", [1e-6]))


@pytest.mark.slow
def test_a_killed_trial_of_two_ranks_goes_on_and_is_pruned(tmp_path):
    folder = tmp_path / "outputs" / "sweeps" / "killed"
    a_study_with_one_very_good_trial(folder)
    first = subprocess.Popen(
        arguments("train", *WORDS), cwd=tmp_path, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (folder / "1" / "checkpoints" / "last.ckpt").exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = run("train", *WORDS, cwd=tmp_path)
    stored = open_study(folder).get_trials()
    assert [trial.state.name for trial in stored] == ["COMPLETE", "PRUNED"]
    assert list(stored[1].intermediate_values) == [1, 2]
    log = (folder / "1" / "train.log").read_text()
    assert re.search(r"resume\s+from \S*last\.ckpt", log), "it began anew"
    metrics = pd.read_csv(folder / "1" / "metrics.csv")
    assert metrics["val/loss"].dropna().tolist() == pytest.approx(
        list(stored[1].intermediate_values.values())
    )
    summary = json.loads((folder / "1" / "summary.json").read_text())
    assert summary["state"] == "pruned"
    assert summary["objective"] == pytest.approx(min(stored[1].intermediate_values.values()))
    wandb = list((folder / "1" / "wandb").glob("offline-run-*"))
    assert {path.name.rpartition("-killed-")[2] for path in wandb} == {"1"}, "one W&B run"
    assert "1 finished, 1 pruned" in done.stdout
    table = pd.read_csv(folder / "sweep.csv")
    assert table["state"].tolist() == ["finished", "pruned"]
    runs = fovea.runs.load(folder)
    assert runs["state"].tolist() == ["pruned"]
    assert runs["id"].tolist() == ["1"]
    # Nothing is left to do, and nothing is done again.
    assert optuna.trial.TrialState.RUNNING not in {trial.state for trial in stored}
