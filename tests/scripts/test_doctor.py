"""The doctor says what is wrong with a machine, whatever it is, and always ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from photo import photo
from process import ROOT, environment

sys.path.insert(0, str(ROOT / "scripts"))
import doctor
import doctor_data
import doctor_software
from doctor import CHECKS, Options, run_apart, run_here

SCRIPT = str(ROOT / "scripts" / "doctor.py")


def run(*words, **extra):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)],
        capture_output=True, text=True, env=environment(**extra), timeout=300,
    )  # fmt: skip


def shadow(folder, code, name="torch"):
    """Make a package that stands before the real one on PYTHONPATH, and return its folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return str(folder)


def test_a_line_a_check_and_an_exit_status(tmp_path):
    done = run("--quick", "--outputs", tmp_path / "not" / "there")
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert lines.pop().endswith(("no problems", "problem", "problems")), done.stdout + done.stderr
    quick = [name for name, check in CHECKS.items() if check.in_quick]
    assert [line[9:24].strip() for line in lines] == quick
    assert {line.split()[0] for line in lines} <= {"ok", "note", "problem"}
    assert done.returncode == int("problem  " in done.stdout)
    assert "ok       packages" in done.stdout
    assert "ok       torch" in done.stdout
    assert not list(tmp_path.iterdir())


def test_without_torch_it_says_so_and_checks_the_rest(tmp_path):
    code = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    done = run("--quick", "--json", "--data", tmp_path, PYTHONPATH=shadow(tmp_path / "x", code))
    assert done.returncode == 1, done.stdout + done.stderr
    said = json.loads(done.stdout)
    found = {check["check"]: check for check in said["checks"]}
    assert found["torch"]["text"] == "torch is not installed"
    assert "pip install" in found["torch"]["todo"]
    assert found["data"]["text"] == "not checked: torch is not installed"
    assert found["configuration"]["level"] == "ok"
    assert said["problems"] == sum(check["level"] == "problem" for check in said["checks"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise OSError('libcudart.so.13: cannot open')", "libcudart.so.13: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", "ended with status -11"),
        ("import sys; sys.exit('gone')", "ended with status 1"),
        ("import subprocess; subprocess.run(['sleep', '60'])", "no answer after"),
    ],
)
def test_a_library_that_is_broken_or_hangs_is_a_problem(tmp_path, monkeypatch, code, expected):
    monkeypatch.setenv("PYTHONPATH", shadow(tmp_path, code))
    limit = 3 if "sleep" in code else 60
    monkeypatch.setitem(CHECKS, "torch", doctor.Check(CHECKS["torch"].run, timeout_s=limit))
    start = time.monotonic()
    finding = run_apart("torch", Options())
    assert finding.level == "problem"
    assert expected in finding.text
    assert finding.todo
    assert time.monotonic() - start < 50


def test_packages_are_compared_with_the_bounds(tmp_path, monkeypatch):
    bounds = '["numpy>=999", "no-such-package>=1", "pillow", "nope; sys_platform == \'none\'"]'
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {bounds}\n")
    monkeypatch.setattr(doctor_software, "ROOT", tmp_path)
    finding = run_here("packages", Options())
    assert finding.level == "problem"
    assert "no-such-package is missing" in finding.text
    assert "numpy" in finding.text
    assert ">=999" in finding.text
    assert "pillow" not in finding.text
    assert "nope" not in finding.text
    assert run_here("git", Options()).level == "note", "this folder is no repository"


def test_the_folder_of_images_is_looked_at(tmp_path, monkeypatch):
    assert run_here("data", Options()).level == "note"
    missing = run_here("data", Options(data=tmp_path / "nowhere"))
    assert missing.level == "problem"
    assert "nowhere" in missing.text
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            photo(60, 80, seed=i).save(tmp_path / name / f"{i}.jpg")
    finding = run_here("data", Options(data=tmp_path))
    assert finding.level == "ok", finding
    assert "2 classes; train 16, val 2, test 2 images; 20 of 20 tried decode" in finding.text
    monkeypatch.setattr(doctor_data, "MEASURE_S", 0.2)
    assert "images of the folder" in run_here("decoding", Options(data=tmp_path)).text
    (tmp_path / "cat" / "3.jpg").write_bytes(b"no image")
    finding = run_here("data", Options(data=tmp_path))
    assert finding.level == "problem"
    assert "19 of 20" in finding.text
    assert "3.jpg" in finding.text
    assert "data.check=true" in finding.todo
    assert "images/s" in run_here("decoding", Options(data=tmp_path)).text


def test_made_images_are_decoded_where_none_are_given(monkeypatch):
    monkeypatch.setattr(doctor_data, "MEASURE_S", 0.2)
    assert "JPEGs of 500 x 375" in run_here("decoding", Options()).text


def test_a_disk_that_is_full_or_not_writable(small_disk):
    assert run_here("disk", Options(outputs=small_disk / "outputs")).level == "problem"
    assert not list(small_disk.iterdir())
    finding = run_here("disk", Options(outputs=Path("/proc/outputs")))
    assert finding.level == "problem"
    assert "paths.outputs=" in finding.todo


def test_shared_memory_as_docker_gives_it():
    mount = "mount -t tmpfs -o size=64m none /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    words = f'{mount} && exec "{sys.executable}" "{SCRIPT}" --check "shared memory"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", words], capture_output=True, text=True, timeout=100
    )
    finding = json.loads(done.stdout)
    assert finding["level"] == "problem"
    assert "--shm-size" in finding["todo"]


@pytest.mark.parametrize(
    ("check", "variables", "level", "expected"),
    [
        ("processors", {"OMP_NUM_THREADS": "4096"}, "note", "OMP_NUM_THREADS=4096"),
        ("places", {"HOME": "/proc/nobody"}, "note", "/proc/nobody"),
        ("network", {"HF_HUB_OFFLINE": "1"}, "note", "HF_HUB_OFFLINE"),
        ("W&B", {"WANDB_MODE": "disabled"}, "ok", "disabled"),
        ("W&B", {"WANDB_MODE": "nonsense"}, "problem", "WANDB"),
        (
            "W&B",
            {"WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "note",
            "does not answer",
        ),
    ],
)
def test_variables_that_change_what_works(tmp_path, check, variables, level, expected):
    done = run("--check", check, "--outputs", tmp_path, **variables)
    finding = json.loads(done.stdout)
    assert finding["level"] == level, finding
    assert expected in finding["text"] + finding["todo"]


def test_offline_runs_that_wait_are_counted(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name / "wandb" / f"offline-run-1-{name}").mkdir(parents=True)
    (tmp_path / "b" / "wandb" / "offline-run-1-b" / "run-b.wandb.synced").touch()
    done = run("--check", "W&B", "--outputs", tmp_path, HOME=str(tmp_path), NETRC=os.devnull)
    finding = json.loads(done.stdout)
    assert finding["level"] == "note"
    assert "2 offline runs" in finding["text"]
    assert "offline-run-1-a" in finding["todo"]
    assert "offline-run-1-b" not in finding["todo"]


def test_a_gpu_that_torch_cannot_use_is_a_problem(tmp_path, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 470.57, 81559'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    finding = run_here("gpus", Options())
    assert finding.level == "problem"
    assert "1 x NVIDIA H100 80GB HBM3, driver 470.57" in finding.text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run_here("gpus", Options()).level == "note"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool.write_text("#!/bin/sh\nexit 9\n")  # what it does without a driver
    assert run_here("gpus", Options()).text == "none: training runs on the CPU"


def test_two_processes_find_each_other():
    finding = run_apart("ranks", Options())
    assert finding.level == "ok", finding
