"""W&B's sweep.yaml: what is in it, and that the agent's own code makes a good command of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb import wandb_agent

from fovea.arguments import prepare_arguments
from fovea.errors import FoveaError
from fovea.sweeps.wandb_spec import sweep_yaml
from fovea.tracking import wandb_logger
from process import ROOT, environment


def command_of(content, values, monkeypatch, tmp_path):
    """Return what W&B's agent would start for ``values`` that its server chose."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them: taken back afterwards
    started = []

    class Process:
        last_sigterm_time = None

        def __init__(self, command, env, **_):
            started.append((command, env))

    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)
    agent = wandb_agent.Agent.__new__(wandb_agent.Agent)
    agent.__dict__.update(
        _sweep_command=content["command"], _function=None, _in_jupyter=False,
        _forward_signals=False, _run_processes={},
    )  # fmt: skip
    arguments = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"run_id": "r1", "program": content["program"], "args": arguments})
    return started[0]


def test_the_agent_starts_a_run_with_the_values_as_overrides(monkeypatch, tmp_path):
    words = ["sweep=augment", "augment=randaug", "data.batch_size=32", "sweep.pruner=hyperband"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "wandb_sweep.py"), *words],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    content = yaml.safe_load(done.stdout)
    assert content["metric"] == {"name": "val/loss", "goal": "minimize"}
    assert content["early_terminate"]["type"] == "hyperband"
    assert content["run_cap"] == 40
    varied = content["parameters"]
    assert set(varied) == {"augment.erase", "augment.magnitude", "task.label_smoothing"}
    assert varied["augment.magnitude"]["values"] == [3, 5, 7, 9, 11, 13, 15]
    values = {key: what["values"][-1] for key, what in varied.items()}
    command, env = command_of(content, values, monkeypatch, tmp_path)
    assert command[:3] == ["/usr/bin/env", "python", "src/train.py"]
    assert (ROOT / command[2]).is_file()
    prepare_arguments("train", command[3:])  # every word is a good override
    assert {"augment.magnitude=15", "augment=randaug", "data.batch_size=32"} <= set(command)
    assert env["WANDB_RUN_ID"] == "r1"


def test_ranges_become_distributions_of_wandb():
    words = ["sweep=lr_wd", "optimizer=sgd", "trainer.max_epochs=int(interval(2,9))"]
    content = sweep_yaml([*words, "sweep.sampler=random", "sweep.seeds=[1,2]"])
    assert content["method"] == "random"
    parameters = content["parameters"]
    log = {"distribution": "log_uniform_values", "min": 0.01, "max": 2.0}
    assert parameters["optimizer.lr"] == log
    assert parameters["trainer.max_epochs"] == {"distribution": "int_uniform", "min": 2, "max": 9}
    assert parameters["seed"] == {"values": [1, 2]}


def test_what_wandb_can_not_express_is_told():
    with pytest.raises(FoveaError, match="optimizer=sgd"):
        sweep_yaml(["sweep=optimizer"])
    with pytest.raises(FoveaError, match="sweep=lr_wd"):
        sweep_yaml(["data.batch_size=32"])


def test_under_an_agent_the_run_keeps_the_agents_name(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    logger = wandb_logger(Path(tmp_path), run_id="2026-01-31", entity="somebody", mode="offline")
    assert logger.experiment.id == "r1"
    logger.finish({})
