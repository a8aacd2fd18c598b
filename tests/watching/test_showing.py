"""Pictures and tables reach W&B and TensorBoard, and nothing of theirs ends a run."""

import json

import pandas as pd
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fovea.tracking import tensorboard_logger, wandb_logger
from fovea.watching import show_results, show_tables

SCORES = {
    "samples": 8,
    "top1": 0.875,
    "nll": None,
    "intervals": {"top1": [0.8, 0.9], "nll": [None, None]},
    "about": {"split": "test"},
    "warnings": [],
}


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    for name in ("confusion_matrix", "mistakes", "train_images"):
        Image.new("RGB", (8, 8), "red").save(folder / f"{name}.png")
    rows = "class,name,recall,most_confused_with\n0,NA,0.5,1\n1,1,,\n2,a|b,1.0,NA\n"
    (folder / "per_class.csv").write_text(rows)
    (folder / "metrics.json").write_text(json.dumps(SCORES))
    return folder


def test_tensorboard_gets_pictures_and_tables(tmp_path, report):
    logger = tensorboard_logger(tmp_path)
    show_results([logger], report)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    # Sheets of the start were logged at the start.
    assert set(events.Tags()["images"]) == {"figures/confusion_matrix", "figures/mistakes"}
    text = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        if "tables" in tag
    }
    scores = text["tables/scores/text_summary"].splitlines()
    assert scores[0] == "| score | value | low | high |"
    assert scores[2:] == [
        "| samples | 8 |  |  |", "| top1 | 0.875 | 0.8 | 0.9 |", "| nll |  |  |  |",
    ]  # fmt: skip
    classes = text["tables/per_class/text_summary"].splitlines()
    assert classes[2:] == ["| 0 | NA | 0.5 | 1 |", "| 1 | 1 |  |  |", "| 2 | a\\|b | 1 | NA |"]


def test_wandb_gets_pictures_and_tables_offline(tmp_path, report):
    logger = wandb_logger(tmp_path / "run", run_id="a-run")
    show_results([logger], report)
    logger.finish({})
    wandb.teardown()
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert len(list(run.rglob("*.png"))) == 2
    tables = {path.name.split("_")[0]: json.loads(path.read_text()) for path in run.rglob("*.json")
              if "table" in path.name or "tables" in str(path)}  # fmt: skip
    (scores,) = [t for t in tables.values() if t["columns"][0] == "score"]
    assert scores["data"] == [
        ["samples", 8, None, None], ["top1", 0.875, 0.8, 0.9], ["nll", None, None, None],
    ]  # fmt: skip
    (classes,) = [t for t in tables.values() if t["columns"][0] == "class"]
    assert classes["data"] == [[0, "NA", 0.5, "1"], [1, "1", None, None], [2, "a|b", 1.0, "NA"]]


def test_what_wandb_raises_costs_a_warning_and_the_tables_come_again(
    tmp_path, report, monkeypatch, caplog
):
    logger = wandb_logger(tmp_path / "run", run_id="a-run")
    logger.log_metrics({"a": 1.0}, step=0)
    log, failed = wandb.Run.log, []

    def fail_once(run, *args, **kwargs):
        if not failed:
            failed.append(1)
            raise BrokenPipeError("the service has gone")
        return log(run, *args, **kwargs)

    monkeypatch.setattr(wandb.Run, "log", fail_once)
    show_tables([logger], {"scores": pd.DataFrame({"score": ["top1"], "value": [0.5]})})
    logger.finish({})
    wandb.teardown()
    assert sum("the service has gone" in record.getMessage() for record in caplog.records) == 1
    tables = list((tmp_path / "run").rglob("*.table.json"))
    assert tables
    assert json.loads(tables[-1].read_text())["data"] == [["top1", 0.5]]


def test_a_folder_without_a_report_logs_nothing(tmp_path):
    logger = tensorboard_logger(tmp_path)
    show_results([logger], tmp_path / "nowhere")
    logger.finalize("success")
    assert not (tmp_path / "tensorboard").exists()
