import json
import math

import pandas as pd
import pytest

from fovea import runs
from fovea.errors import FoveaError
from fovea.runs.settings import parse_settings
from made_runs import write_run


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("FOVEA_CACHE", "")


def test_one_row_a_run_with_metrics_and_the_settings_that_differ(tmp_path):
    for job in (10, 2, 0):
        write_run(tmp_path / "sweep" / str(job), seed=job, lr=0.1, top1=job / 20)
    (tmp_path / "sweep" / "sweep.csv").write_text("trial\n")
    write_run(tmp_path / "alone", seed=0, lr=0.2)
    inside = tmp_path / "alone" / "wandb" / "offline-run" / "files"
    inside.mkdir(parents=True)
    (inside / "config.yaml").write_text("not: a run")
    table = runs.load(tmp_path)
    assert table["id"].tolist() == ["alone", "sweep/0", "sweep/2", "sweep/10"]
    assert table["sweep"].fillna("").tolist() == ["", "sweep", "sweep", "sweep"]
    assert table["test/top1"].tolist() == [0.5, 0.0, 0.1, 0.5]
    assert table["seed"].tolist() == [0, 0, 2, 10]
    assert table["optimizer.lr"].tolist() == [0.2, 0.1, 0.1, 0.1]
    assert (table["model.name"] == "resnet18").all()
    assert (table["kind"] == "train").all()
    assert table["state"].unique().tolist() == ["finished"]
    assert table["error"].isna().all()
    assert table["overrides"][0] == "seed=0 optimizer.lr=0.2"
    names = {"seed", "model.name", "data.batch_size", "trainer.max_epochs", "optimizer.lr"}
    assert set(table.attrs["settings"]) == names | {"data.seed"}
    hidden = {"model.head.dropout", "paths.run", "run_id", "bad_images", "tags"}
    assert not hidden & set(table)
    assert not [name for name in table if name.startswith(("callbacks", "splits"))]


def test_what_a_row_says_of_one_run(tmp_path):
    write_run(tmp_path / "run", top1=0.5)
    row = runs.load(tmp_path / "run").iloc[0]
    assert row["id"] == "."
    assert (row["val/loss"], row["val/top1"]) == (0.5, 0.75)  # of the best epoch, not the last
    assert (row["last/val/loss"], row["last/val/top1"]) == (2.0, 0.0)
    assert (row["train/loss"], row["test/top1"]) == (1.0, 0.5)
    assert (row["objective"], row["monitor"], row["mode"]) == (0.5, "val/loss", "min")
    assert (row["best_epoch"], row["best_step"], row["epochs"], row["steps"]) == (1, 19, 3, 30)
    assert (row["throughput"], row["perf/images_per_second"]) == (101, 102)
    assert row["time"] == pd.Timestamp("2026-11-24 12:00:00", tz="UTC")
    assert (row["duration"], row["seconds"]) == (12.5, 12.5)
    assert (row["commit"], row["dirty"], row["host"]) == ("a" * 40, False, "elsewhere")
    assert row["hardware"] == "2 x NVIDIA A100"


def test_an_evaluation_is_a_row_of_its_own_kind(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1)
    folder = tmp_path / "eval"
    folder.mkdir()
    (folder / "config.yaml").write_text("split: test\nckpt: a\nseed: 0\nviews: 10\n")
    scores = {"test/top1": 0.25}
    done = {"state": "finished", "ckpt": "a", "split": "test", "metrics": scores}
    (folder / "summary.json").write_text(json.dumps(done))
    table = runs.load(tmp_path).set_index("id")
    assert table["kind"].tolist() == ["train", "train", "eval"]
    assert table.loc["eval", "test/top1"] == 0.25
    assert "views" not in table, "a setting that other kinds lack differs in nothing"
    assert table["error"].isna().all()


def test_an_evaluation_of_several_has_a_row_for_each(tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "config.yaml").write_text("split: test\nckpt: [a, b]\n")
    models = [
        {
            "name": "a",
            "state": "finished",
            "ckpt": "/a.ckpt",
            "metrics": {"test/top1": 0.25, "id": 1},
        },
        {"name": "b", "state": "failed", "ckpt": None, "metrics": {}, "error": "no such file"},
        {"name": "../../etc", "state": "finished", "metrics": {"test/top1": 1.0}},
        "c",
    ]
    done = {"state": "finished", "ckpt": ["a", "b"], "split": "test", "models": models}
    (folder / "summary.json").write_text(json.dumps(done))
    table = runs.load(tmp_path)
    assert table["id"].tolist() == ["both/a", "both/b"]
    assert table["path"].tolist() == [str(folder / "a"), str(folder / "b")]
    assert table["kind"].tolist() == ["eval"] * 2
    assert table["split"].tolist() == ["test"] * 2
    assert table["state"].tolist() == ["finished", "failed"]
    assert (table["test/top1"][0], table["ckpt"][0]) == (0.25, "/a.ckpt")
    assert math.isnan(table["test/top1"][1])
    assert table["error"][1] == "no such file"
    assert runs.load(folder)["id"].tolist() == ["a", "b"]


def test_no_runs_are_an_empty_table_and_no_folder_is_an_error(tmp_path):
    table = runs.load(tmp_path)
    assert len(table) == 0
    assert {"id", "path", "state", "error", "time", "val/loss"} - set(table) == {"val/loss"}
    with pytest.raises(FoveaError, match="no folder of runs"):
        runs.load(tmp_path / "absent")


def test_history_of_one_and_of_several(tmp_path, caplog):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", top1=0.25)
    table = runs.load(tmp_path)
    curves = runs.history(table.iloc[0])
    pd.testing.assert_frame_equal(curves, runs.history(str(first)))
    assert curves["step"].tolist() == [9, 19, 29]
    assert curves["val/loss"].tolist() == [1.0, 0.5, 2.0]
    both = runs.history(table)
    assert both.columns[0] == "run"
    assert both["run"].tolist() == ["a"] * 3 + ["b"] * 3
    assert both[both["run"] == "b"]["val/loss"].tolist() == [1.0, 0.75, 2.0]
    pd.testing.assert_frame_equal(
        runs.history([first, second]).drop(columns="run"), both.drop(columns="run")
    )
    with (second / "metrics.csv").open("a") as file:
        file.write("3,39,0.1")  # a kill within the line: it may be 0.12
    assert len(runs.history(second)) == 3
    (second / "metrics.csv").write_bytes(b"\xff\xfe")
    assert set(runs.history(table)["run"]) == {"a"}
    assert "1 of 2 runs have no curves" in caplog.text
    with pytest.raises(FoveaError, match=r"metrics\.csv"):
        runs.history(tmp_path)


def test_diff_of_config_data_environment_and_code(tmp_path):
    first = write_run(tmp_path / "run_number_one", seed=0, lr=0.1)
    second = write_run(tmp_path / "run_number_two", seed=1, lr=0.1, splits={"test": {"count": 9}})
    environment = json.loads((second / "environment.json").read_text())
    environment |= {"git": {"commit": "b" * 40, "dirty": True}, "time": "2027-01-01T00:00:00"}
    environment["packages"]["timm"] = "1.1"
    (second / "environment.json").write_text(json.dumps(environment))
    found = runs.diff(first, second)
    rows = {(part, key): (a, b) for part, key, a, b in found.itertuples(index=False)}
    assert rows == {
        ("config", "seed"): (0, 1),
        ("config", "data.seed"): (0, 1),
        ("data", "test.count"): (100, 9),
        ("data", "test.fingerprint"): ("f00", None),
        ("environment", "packages.timm"): ("1.0.31", "1.1"),
        ("code", "commit"): ("a" * 40, "b" * 40),
        ("code", "dirty"): (False, True),
    }
    same = runs.diff(second, runs.load(tmp_path).iloc[1])
    assert same.values.tolist() == [["code", "dirty", True, True]], "the same commit, other code?"
    assert runs.diff(first, first).empty
    with pytest.raises(FoveaError, match="no run at"):
        runs.diff(first, tmp_path / "absent")


def test_what_a_recipe_promises_is_no_setting_of_the_run(tmp_path):
    document = {"source": "a paper", "results": [{"metric": "val/top1", "value": 0.7}], "epochs": 3}
    first = write_run(tmp_path / "with", config={"expected": document})
    second = write_run(tmp_path / "without")
    third = write_run(tmp_path / "another", config={"expected": {**document, "epochs": 4}})
    assert runs.diff(first, second).empty
    assert runs.diff(first, third).empty
    table = runs.load(tmp_path)
    assert not [name for name in table if name.startswith("expected")]
    assert len(runs.group(table)) == 1


def test_group_over_seeds(tmp_path):
    for lr, tops in ((0.1, (0.25, 0.5, 0.75)), (0.2, (0.125,))):
        for seed, top1 in enumerate(tops):
            write_run(tmp_path / f"{lr}-{seed}", seed=seed, lr=lr, top1=top1)
    write_run(tmp_path / "cut", seed=9, lr=0.1, top1=0.0, state="failed")
    table = runs.load(tmp_path)
    groups = runs.group(table).set_index("optimizer.lr")
    assert groups["n"].to_dict() == {0.1: 3, 0.2: 1}
    assert groups.loc[0.1, "runs"] == ["0.1-0", "0.1-1", "0.1-2"]
    assert groups.loc[0.1, "test/top1 mean"] == 0.5
    assert groups.loc[0.1, "test/top1 std"] == pytest.approx(0.25)  # of 0.25, 0.5, 0.75
    assert groups.loc[0.1, "objective mean"] == 0.5
    assert math.isnan(groups.loc[0.2, "test/top1 std"])
    by_hand = runs.group(table, by="optimizer.lr").set_index("optimizer.lr")
    pd.testing.assert_frame_equal(groups, by_hand)
    assert runs.group(table[table["optimizer.lr"] == 0.1])["n"].tolist() == [3]
    assert runs.group(table, over=["seed", "optimizer.lr"])["n"].tolist() == [4]
    assert set(runs.group(table, states=("failed", "finished"))["n"]) == {4, 1}
    with pytest.raises(FoveaError, match=r"Did you mean 'optimizer\.lr'"):
        runs.group(table, by="optimiser.lr")
    with pytest.raises(FoveaError, match="by="):
        runs.group(pd.DataFrame(table.to_dict("records")))


def test_of_a_run_called_as_its_network_only_paths_are_its_own(tmp_path):
    text = (
        "model: {name: test_resnet, weights: hub/test_resnet}\nbest: /was/test_resnet/best.ckpt\n"
    )
    text += f"now: {tmp_path}/test_resnet/x\nnext: {tmp_path}/test_resnet2/x\n"
    text += "paths:\n  data: /data\n  run: /was/test_resnet\n"
    assert parse_settings(text, tmp_path / "test_resnet") == {
        "model.name": "test_resnet",
        "model.weights": "hub/test_resnet",
        "best": "<run>/best.ckpt",
        "now": "<run>/x",
        "next": f"{tmp_path}/test_resnet2/x",
        "paths.data": "/data",
        "paths.run": "<run>",
    }
