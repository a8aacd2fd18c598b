"""The loop over trials: it ends, and neither repeats what is done nor tells secrets."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from fovea import run_folder
from fovea.arguments import prepare_arguments
from fovea.catalog import config_dir
from fovea.errors import FoveaError
from fovea.sweeps import basic
from fovea.sweeps.checking import read_record
from fovea.sweeps.plan import Plan
from fovea.sweeps.study import Trials
from fovea.sweeps.sweeper import _places, _Runner


class Launcher:
    """Calls ``do(folder)`` for each job in place of training; keeps what it was asked to run."""

    def __init__(self, plan, do):
        self.plan, self.do, self.launched = plan, do, []

    def launch(self, job_overrides, initial_job_idx):
        given = [dict(word.split("=", 1) for word in words) for words in job_overrides]
        for words in given:
            if words["hydra.sweep.subdir"] == "broken":
                raise ConfigCompositionException("does not compose")
        for words in given:
            assert words["resume"] == "auto"
            folder = self.plan.folder / words["hydra.sweep.subdir"]
            folder.mkdir(parents=True, exist_ok=True)
            self.launched.append(folder.name)
            self.do(folder)


def plan_of(folder, *words):
    words = ["sweep=lr_wd", "sweep.name=s", "sweep.n_trials=3", *words]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", [*words, f"hydra.sweep.dir={folder}"], return_hydra_config=True)
    return Plan(cfg, words)


def finish(folder):
    run_folder.write_summary(folder, state="finished", monitor="val/loss", objective=0.5)


def runner_of(plan, do):
    trials = Trials(plan.folder, plan.settings, plan.runs)
    launcher = Launcher(plan, do)
    return _Runner(plan, trials, launcher), trials, launcher


def test_a_job_without_a_result_ends_its_trial(tmp_path):
    runner, trials, launcher = runner_of(plan_of(tmp_path), lambda folder: None)
    runner.run(1, wait=True)
    assert launcher.launched == ["0", "1", "2"]
    assert {(t.state.name, t.user_attrs["error"]) for t in trials.all()} == {
        ("FAIL", "ended without a result")
    }


def test_seeds_that_are_done_are_not_run_again(tmp_path):
    plan = plan_of(tmp_path, "sweep.seeds=[1,2]", "sweep.n_trials=1")

    def cut(folder):
        if folder.name.endswith("seed2"):
            raise KeyboardInterrupt
        finish(folder)

    first, trials, launcher = runner_of(plan, cut)
    claim, claims = trials.claim, []
    trials.claim = lambda: claims.append(claim()) or claims[-1]
    with pytest.raises(KeyboardInterrupt):
        first.run(1, wait=True)
    claims[0].lock.release()  # as if its process had ended
    assert launcher.launched == ["0_seed1", "0_seed2"]
    again, trials, launcher = runner_of(plan, finish)
    again.run(1, wait=False)
    assert launcher.launched == ["0_seed2"]
    assert trials.all()[0].values == [0.5]


def test_settings_that_do_not_compose_fail_their_own_trial_only(tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    own = plan.own

    def broken(number, seed):
        words = own(number, seed)
        return ["hydra.sweep.subdir=broken", *words[1:]] if number == 1 else words

    monkeypatch.setattr(plan, "own", broken)
    runner, trials, launcher = runner_of(plan, finish)
    runner.run(3, wait=True)
    assert launcher.launched == ["0", "2"]
    assert [t.state.name for t in trials.all()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials.all()[1].user_attrs["error"] == "does not compose"


@pytest.mark.parametrize(
    ("objectives", "reports"),
    [("{val/loss: min}", True), ("{val/top1: max}", False), ("{seconds: min}", False),
     ("{val/loss: min, seconds: min}", False)],
)  # fmt: skip
def test_only_the_monitored_metric_is_pruned_by(tmp_path, objectives, reports):
    plan = plan_of(tmp_path, f"sweep.objectives={objectives}")
    assert plan.settings.pruner == ("median" if reports else "none")
    assert (f"++callbacks.pruning.report={str(reports).lower()}") in plan.own(0, None)


def test_records_hold_no_secrets_and_are_recognised_without_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secret = "+data.token=tr0ub4dor-and-3"
    plan = plan_of(tmp_path / "study", secret)
    for _ in range(2):
        plan.record()
    words = ["seed=1,2", secret, "run_id=grid"]
    grid = tmp_path / "outputs" / "grid"
    cfg = OmegaConf.create({"hydra": {"sweep": {"dir": str(grid)}}})
    prepare_arguments("train", ["-m", *words])
    basic.record(cfg, words)
    for folder in (tmp_path / "study", grid):
        text = (folder / "sweep.yaml").read_text()
        assert "tr0ub4dor" not in text
        assert "+data.token=***" in yaml.safe_dump(read_record(folder))
    with pytest.raises(FoveaError, match="resume=auto; or take another run_id"):
        prepare_arguments("train", ["-m", *words])
    prepare_arguments("train", ["-m", *words, "resume=auto"])


def test_a_study_uses_the_places_of_its_launcher(capsys):
    from fovea.launchers import BasicLauncher, LocalLauncher
    from fovea.launchers.ray_cluster import RayLauncher

    assert _places(BasicLauncher()) == 1
    assert _places(LocalLauncher(jobs=3)) == 3
    assert capsys.readouterr().out == ""
    assert _places(RayLauncher(None, 1, 0, 0)) == 1
    assert "sweep.workers=8" in capsys.readouterr().out
