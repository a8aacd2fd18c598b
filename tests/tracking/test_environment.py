import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from fovea.safety.redaction import redact_command
from fovea.tracking import environment_record
from fovea.tracking.environment import git_state


def test_record_is_plain_json_and_names_versions_and_hardware() -> None:
    record = environment_record(["python", "src/train.py", "model=resnet18"])
    assert json.loads(json.dumps(record)) == record
    assert record["packages"]["torch"] == version("torch")
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["cpu"]["usable"] >= 1
    assert record["memory_gb"] > 0.1
    assert record["command"] == "python src/train.py model=resnet18"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["logger.wandb.api_key=abc"], "logger.wandb.api_key=***"),
        (["+data.PASSWORD=x=y"], "+data.PASSWORD=***"),
        (["--token", "abc", "seed=1"], "--token *** seed=1"),
        (["--api-key=abc"], "--api-key=***"),
        (["url=https://me:pw@host/x"], "url=https://***@host/x"),
        (["weights=hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"], "weights=***"),
        (["name=a b", "seed=0"], "'name=a b' seed=0"),
        (["model.tokenizer=x", "data.author=me"], "model.tokenizer=x data.author=me"),
    ],
)
def test_secrets_do_not_reach_the_record(words, expected) -> None:
    assert redact_command(words) == expected


def git(folder, *arguments) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_git_state(tmp_path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    git(tmp_path, "init")
    package = tmp_path / "src"
    package.mkdir()
    (package / "a.py").write_text("1")
    assert git_state(package) == {"commit": None, "dirty": None}
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(package) == {"commit": commit, "dirty": False}
    (tmp_path / "new.py").write_text("1")
    assert git_state(package) == {"commit": commit, "dirty": True}
    (tmp_path / ".gitignore").write_text("venv\n")
    installed = tmp_path / "venv" / "fovea"
    installed.mkdir(parents=True)
    assert git_state(installed) == {"commit": None, "dirty": None}


def test_no_git_on_the_machine(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
