import json
import os
import time

import pytest

from fovea import runs
from fovea.runs import table as table_module
from fovea.runs.cache import FEWEST_NEW
from made_runs import write_run

RUNS = FEWEST_NEW + 1


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Return a folder of enough settled runs, with a cache beside it."""
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    for number in range(RUNS):
        grow_old(write_run(tmp_path / "outputs" / str(number), seed=number))
    return tmp_path / "outputs"


def grow_old(folder):
    for file in folder.iterdir():
        os.utime(file, (time.time() - 86_400,) * 2)


@pytest.fixture
def read(monkeypatch):
    """Return a list of the runs whose files were read."""
    names = []
    real = table_module.read_record

    def noted(folder, stamps):
        names.append(folder.name)
        return real(folder, stamps)

    monkeypatch.setattr(table_module, "read_record", noted)
    return names


def test_only_what_has_changed_is_read_again(outputs, read):
    first = runs.load(outputs)
    assert len(read) == RUNS
    assert runs.load(outputs).equals(first)
    assert len(read) == RUNS
    file = outputs / "3" / "summary.json"
    file.write_text(file.read_text().replace("finished", "failed!!"))  # of the same size
    changed = runs.load(outputs)
    assert read[RUNS:] == ["3"]
    assert changed["state"].tolist().count("failed!!") == 1
    with (outputs / "5" / "metrics.csv").open("a") as metrics:
        metrics.write("3,39,0.1,0.9,0.1,100\n")
    os.utime(outputs / "5" / "metrics.csv", (time.time() - 60,) * 2)
    assert runs.load(outputs).set_index("id").loc["5", "best_epoch"] == 3
    (outputs / "7" / "summary.json").unlink()
    assert "there is none" in runs.load(outputs).set_index("id").loc["7", "error"]


def test_a_run_that_was_changed_a_moment_ago_is_not_kept(outputs, read, monkeypatch):
    monkeypatch.setattr("fovea.runs.cache.SETTLED_S", 3600.0)
    (outputs / "3" / "summary.json").touch()
    runs.load(outputs)
    runs.load(outputs)
    assert read[RUNS:] == ["3"]


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"format": 1, "runs": {"x": 1}}', "gone", "shape"]
)
def test_a_damaged_cache_is_no_cache(outputs, damage):
    first = runs.load(outputs)
    [file] = outputs.with_name("cache").glob("runs-*.json")
    if damage == "gone":
        file.unlink()
    elif damage == "shape":
        kept = json.loads(file.read_text())
        for entry in kept["runs"].values():
            entry["record"] = {"row": []}
        file.write_text(json.dumps(kept))
    else:
        file.write_text(damage)
    assert runs.load(outputs).equals(first)


def test_nowhere_to_keep_it_is_no_problem(outputs, monkeypatch, tmp_path):
    first = runs.load(outputs)
    (tmp_path / "taken").write_text("a file")
    for place in (str(tmp_path / "taken"), "/proc/nowhere", ""):
        monkeypatch.setenv("FOVEA_CACHE", place)
        assert runs.load(outputs).equals(first)
