import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fovea import runs
from fovea.errors import FoveaError


def write_run(folder: Path, seed: int, lr: float, top1: float | None = 0.5, **summary) -> None:
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "run_id": folder.name,
        "tags": ["x"],
        "paths": {"run": str(folder)},
        "model": {"name": "resnet18", "head": {"dropout": 0.0}},
        "optimizer": {"lr": lr},
        "trainer": {"max_epochs": 3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {} if top1 is None else {"val/top1": top1, "val/loss": 0.25}
    summary = {"state": "finished", "objective": top1, "metrics": metrics, "bad": [1], **summary}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n0,3,\n")
    (folder / "checkpoints").mkdir()
    inside = folder / "wandb" / "offline-run" / "files"
    inside.mkdir(parents=True)
    (inside / "config.yaml").write_text("not: a run")


def test_one_row_a_run_with_metrics_and_the_settings_that_differ(tmp_path) -> None:
    for job in (10, 2, 0):
        write_run(tmp_path / "sweep" / str(job), seed=job, lr=0.1, top1=job / 10, seconds=3.5)
    write_run(tmp_path / "alone", seed=0, lr=0.2)
    table = runs.load(tmp_path)
    assert table["id"].tolist() == ["alone", "sweep/0", "sweep/2", "sweep/10"]
    assert table["val/top1"].tolist() == [0.5, 0.0, 0.2, 1.0]
    assert table["objective"].tolist() == table["val/top1"].tolist()
    assert table["seed"].tolist() == [0, 0, 2, 10]
    assert table["optimizer.lr"].tolist() == [0.2, 0.1, 0.1, 0.1]
    assert (table["model.name"] == "resnet18").all()
    assert table["state"].unique().tolist() == ["finished"]
    assert table["error"].isna().all()
    assert not {"model.head.dropout", "paths.run", "run_id", "bad", "tags"} & set(table)
    assert table["seconds"].notna().sum() == 3


def test_damaged_runs_are_rows_that_say_what_is_wrong(tmp_path) -> None:
    write_run(tmp_path / "a", seed=0, lr=0.1)
    write_run(tmp_path / "b", seed=0, lr=0.1)
    (tmp_path / "b" / "summary.json").write_text('{"state": "fini')
    write_run(tmp_path / "c", seed=0, lr=0.1)
    (tmp_path / "c" / "config.yaml").write_text("a: [")
    write_run(tmp_path / "d", seed=0, lr=0.1)
    (tmp_path / "d" / "summary.json").write_text("[1, 2]")
    write_run(tmp_path / "e", seed=0, lr=0.1, state="failed", error="the loss is nan")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "metrics.csv").write_bytes(b"\xff\xfe")
    write_run(tmp_path / "g", seed=0, lr=0.1)
    (tmp_path / "g" / "summary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    table = runs.load(tmp_path).set_index("id")
    assert table.index.tolist() == ["a", "b", "c", "d", "e", "f", "g"]
    assert table["error"].notna().tolist() == [False, *[True] * 6]
    assert table.loc["b", "error"].startswith("summary.json")
    assert table.loc["c", "error"].startswith("config.yaml")
    assert table.loc["c", "val/top1"] == 0.5
    assert table.loc["e", "error"] == "the loss is nan"
    assert table.loc["e", "state"] == "failed"
    assert table.loc["b", "state"] == "unknown"
    assert table.loc["b", "model.name"] == "resnet18"


def test_a_single_run_folder_is_a_table_of_one(tmp_path) -> None:
    write_run(tmp_path / "run", seed=0, lr=0.1)
    table = runs.load(tmp_path / "run")
    assert table["id"].tolist() == ["."]
    assert table["seed"].tolist() == [0]


def test_no_runs_are_an_empty_table_and_no_folder_is_an_error(tmp_path) -> None:
    table = runs.load(tmp_path)
    assert len(table) == 0
    assert {"id", "path", "state", "error"} <= set(table)
    with pytest.raises(FoveaError, match="no folder of runs"):
        runs.load(tmp_path / "absent")


def test_history_by_folder_and_by_row(tmp_path) -> None:
    write_run(tmp_path / "run", seed=0, lr=0.1)
    by_folder = runs.history(tmp_path / "run")
    by_row = runs.history(runs.load(tmp_path).iloc[0])
    pd.testing.assert_frame_equal(by_folder, by_row)
    assert by_folder["train/loss"].tolist()[0] == 0.5
    assert by_folder["step"].tolist() == [1, 3]
    with pytest.raises(FoveaError, match=r"metrics\.csv"):
        runs.history(tmp_path)
