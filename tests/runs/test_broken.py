"""Whatever lies in a folder of runs, the table comes, and says what is wrong."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import fovea
from fovea import runs
from made_runs import write_run


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("FOVEA_CACHE", "")


LEVELS = list(zip("abcdefghij", "bcdefghijk", strict=True))
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + below] * 9)}]\n" for below, name in LEVELS
)
CONTENTS = {
    "summary.json": {
        "cut": (b'{"state": "fini', "Unterminated string"),
        "list": (b"[1, 2]", "it holds a list"),
        "zero": (b"", "Expecting value"),
        "binary": (b"\xff\xfe\x00", "it is no text"),
        "deep": (b"[" * 100_000, "nested too deeply"),
        "digits": (b'{"started": 1' + b"0" * 400 + b"}", "started is too large a number"),
        "count": (b'{"epochs": 1' + b"0" * 400 + b"}", "epochs is too large a number"),
    },
    "config.yaml": {
        "cut": (b"a: [", "did not find expected node content"),
        "list": (b"- a\n- b\n", "no mapping"),
        "zero": (b"", "no mapping"),
        "tag": (b"a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        "binary": (b"\x00\x01\x02", "characters are not allowed"),
        "deep": (b"a: " + b"[" * 50_000, "nested too deeply"),
        "deeper": (b"\n".join(b" " * i + b"a:" for i in range(1000)), "nested too deeply"),
        "bomb": (BOMB.encode(), "more than 20,000 values"),
        "large": (b"a: 1\n" * 300_000, "too large"),
    },
    "metrics.csv": {
        "zero": (b"", "it is empty"),
        "binary": (b"\x80\x81" * 40, "it is no text"),
        "other": (b"a,b\n1,2\n", "no column 'step'"),
        "words": (b"epoch,step,val/loss\n0,1,yes\n", "could not convert"),
        "null": (b"\x00" * 64, "no column 'step'"),
        "long": (b"epoch,step,val/loss\n0,1" + b"0" * 90 + b",1\n", "steps is too large a number"),
    },
    "environment.json": {"cut": (b"{", "Expecting"), "list": (b"[]", "it holds a list")},
    "overrides.yaml": {"word": (b"a: 1", "no list")},
}


def test_broken_files_are_rows_with_a_reason(tmp_path):
    expected = {}
    for file, cases in CONTENTS.items():
        for case, (content, reason) in cases.items():
            folder = write_run(tmp_path / f"{file}-{case}")
            (folder / file).write_bytes(content)
            expected[folder.name] = reason
    write_run(tmp_path / "whole")
    write_run(tmp_path / "seed", seed=-(10**400))
    expected["seed"] = "seed is too large a number"
    table = runs.load(tmp_path).set_index("id")
    assert table["error"].isna()["whole"]
    for name, reason in expected.items():
        assert reason in str(table.loc[name, "error"]), name
    # What can be read is there all the same.
    assert table.loc["config.yaml-tag", "test/top1"] == 0.5
    assert table.loc["summary.json-list", "model.name"] == "resnet18"
    assert table.loc["summary.json-list", "state"] == "unknown"
    assert table.loc["metrics.csv-zero", "objective"] == 0.5
    assert table.loc["summary.json-count", "model.name"] == "resnet18"
    assert "model.head.dropout" not in table, "runs without settings make no difference"


def test_odd_folders_are_rows_or_left_out(tmp_path):
    (tmp_path / "only-metrics").mkdir()
    (tmp_path / "only-metrics" / "metrics.csv").write_text("epoch,step,val/loss\n0,1,0.5\n")
    write_run(tmp_path / "folder-for-file")
    (tmp_path / "folder-for-file" / "metrics.csv").unlink()
    (tmp_path / "folder-for-file" / "metrics.csv").mkdir()
    write_run(tmp_path / "pipe")
    (tmp_path / "pipe" / "metrics.csv").unlink()
    os.mkfifo(tmp_path / "pipe" / "metrics.csv")
    write_run(tmp_path / "loop")
    (tmp_path / "loop" / "environment.json").unlink()
    (tmp_path / "loop" / "environment.json").symlink_to("environment.json")
    write_run(tmp_path / "old", config={"monitor": None}, monitor=None, objective=None)
    write_run(tmp_path / "failed", state="failed", error="the loss is nan")
    write_run(tmp_path / "plain").rename(os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff\x1b[31m"))
    deep = tmp_path.joinpath(*["d"] * 60)
    write_run(deep / "below")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("")
    (tmp_path / "turning").symlink_to(tmp_path)
    table = runs.load(tmp_path).set_index("id")
    odd = "odd-\\udcff\\x1b[31m"
    below = "/".join(["d"] * 60) + "/below"
    names = ["only-metrics", "folder-for-file", "pipe", "loop", "old", "failed", odd, below]
    assert sorted(table.index) == sorted(names)
    assert (
        table.loc["only-metrics", "error"]
        == "summary.json: there is none; config.yaml: there is none"
    )
    assert table.loc["only-metrics", "state"] == "unknown"
    assert table.loc["folder-for-file", "error"] == "metrics.csv: it is no file"
    assert table.loc["pipe", "error"] == "metrics.csv: it is no file"
    assert table.loc["failed", "error"] == "the loss is nan"
    assert table.loc["failed", "state"] == "failed"
    assert table["error"].isna()[["loop", "old", odd, below]].all()
    assert len(runs.history(table.loc[odd])) == 3


LOOK = """
import os, sys
from fovea import runs
if os.getuid() == 0:
    os.setuid(65534)
table = runs.load(sys.argv[1])
print(table[["id", "state", "error"]].to_csv(index=False))
"""


@pytest.fixture
def open_folder():
    """Yield a folder that others may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.getuid() == 0 and any(not above.stat().st_mode & 0o001 for above in folder.parents):
            pytest.skip("nobody but root may enter the folder for temporary files")
        folder.chmod(0o755)
        yield folder


def test_what_may_not_be_read_is_said(open_folder):
    """Root may read all, so it looks as somebody else."""
    closed = write_run(open_folder / "closed")
    (write_run(open_folder / "secret") / "summary.json").chmod(0)
    source = str(Path(fovea.__file__).parents[1])
    closed.chmod(0)
    try:
        seen = subprocess.run(
            [sys.executable, "-c", LOOK, str(open_folder)], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": source}, check=False,
        )  # fmt: skip
    finally:
        closed.chmod(0o755)
    assert seen.returncode == 0, seen.stderr
    assert "closed,unknown,can't be listed: Permission denied" in seen.stdout
    assert "secret,unknown,summary.json: Permission denied" in seen.stdout
