"""What a command imports: nothing slow to answer, and no more than it needs to take a step."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from process import ROOT, environment

HEAVY = {"torch", "lightning", "torchvision", "timm", "numpy", "pandas", "matplotlib", "sklearn",
         "scipy", "wandb", "optuna", "PIL", "torchmetrics"}  # fmt: skip
LISTED = (
    "import atexit, runpy, sys; sys.argv = sys.argv[1:];"
    "atexit.register(lambda: print('MODULES', *{m.partition('.')[0] for m in sys.modules}));"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def modules_of(folder, *words):
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(WANDB_MODE="offline"),
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    marked = [set(line) for line in lines if line[:1] == ["MODULES"] or line[:1] == ["FIRST"]]
    assert marked, done.stdout + done.stderr
    return marked[-1], done


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--help"], 0, "resnet18"),
        (["model=resnet81"], 2, "Did you mean 'resnet18'?"),
        (["--cfg", "job"], 0, "max_epochs: 20"),
    ],
)
def test_answers_need_nothing_heavy(tmp_path, words, status, says):
    modules, done = modules_of(tmp_path, "-c", LISTED, str(ROOT / "src" / "train.py"), *words)
    assert done.returncode == status
    assert says in done.stdout + done.stderr
    assert "fovea" in modules
    assert not modules & HEAVY


@pytest.mark.slow
def test_the_first_step_needs_no_sweeper_and_no_launcher_of_wandb(tmp_path):
    script = ROOT / "scripts" / "trainer_startup.py"
    modules, done = modules_of(tmp_path, str(script), "model=timm", "model.name=test_resnet")
    assert {"torch", "lightning", "wandb"} <= modules
    assert not modules & {"optuna", "tensorboard", "ray", "captum", "IPython"}
    assert "wandb.sdk.launch" not in done.stdout.split()


def test_the_benchmark_trains_as_a_plain_loop_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.chdir(tmp_path)
    benchmark = runpy.run_path(str(ROOT / "scripts" / "benchmark_trainer.py"))
    assert benchmark["check"](benchmark["convs"](8), Path(tmp_path)) <= 1e-6
