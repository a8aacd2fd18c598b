import csv
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from fovea.tracking import MetricsCSV, last_values


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def columns(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()[0].split(",")


def test_one_row_a_step_and_columns_in_the_order_they_came(tmp_path) -> None:
    table = MetricsCSV(tmp_path / "run")
    table.log_metrics({"train/loss": 0.5, "epoch": 0}, step=4)
    table.log_metrics({"train/loss": 0.25, "epoch": 0}, step=9)
    table.log_metrics({"val/top1": torch.tensor(0.75), "epoch": 0}, step=9)
    table.log_metrics({"a,b": 1, "epoch": 0}, step=9)
    table.log_metrics({"train/loss": 0.125, "epoch": 1}, step=14)
    assert next(csv.reader((tmp_path / "run/metrics.csv").open())) == [
        "epoch", "step", "train/loss", "val/top1", "a,b",
    ]  # fmt: skip
    assert rows(tmp_path / "run") == [
        {"epoch": "0", "step": "4", "train/loss": "0.5"},
        {"epoch": "0", "step": "9", "train/loss": "0.25", "val/top1": "0.75", "a,b": "1"},
        {"epoch": "1", "step": "14", "train/loss": "0.125"},
    ]


def test_every_call_reaches_the_file_and_the_last_row_is_completed_in_place(tmp_path) -> None:
    table = MetricsCSV(tmp_path)
    for step in range(3):
        table.log_metrics({"a": 1.5, "b": 2.5, "epoch": 0}, step=step)
    for count in range(1, 4):
        table.log_metrics({"b": 10.0**count}, step=2)
        assert rows(tmp_path)[-1] == {
            "epoch": "0", "step": "2", "a": "1.5", "b": str(10.0**count),
        }  # fmt: skip
        assert len(rows(tmp_path)) == 3
    table.log_metrics({"a": 3.5}, step=3)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]
    assert not list(tmp_path.glob("*.tmp"))


def test_numbers_keep_all_their_digits(tmp_path) -> None:
    value = 1 / 3
    MetricsCSV(tmp_path).log_metrics({"a": value, "b": torch.tensor(0.1), "c": 1e-300}, step=0)
    (row,) = rows(tmp_path)
    assert float(row["a"]) == value
    assert torch.tensor(float(row["b"])) == torch.tensor(0.1)
    assert float(row["c"]) == 1e-300


def fill(folder: Path, steps: range) -> None:
    table = MetricsCSV(folder)
    for step in steps:
        table.log_metrics({"loss": float(step), "epoch": step // 10}, step=step)


def test_resume_drops_what_is_logged_again_and_keeps_the_rest(tmp_path) -> None:
    fill(tmp_path, range(30))
    resumed = MetricsCSV(tmp_path, resume_step=20)
    assert len(rows(tmp_path)) == 30  # nothing happens before something is logged
    resumed.log_metrics({"loss": -1.0, "epoch": 2}, step=24)
    assert [int(row["step"]) for row in rows(tmp_path)] == [*range(20), 24]
    assert rows(tmp_path)[-1]["loss"] == "-1.0"
    assert columns(tmp_path) == ["epoch", "step", "loss"]


def test_resume_without_a_step_drops_what_comes_after_the_first_logged_one(tmp_path) -> None:
    fill(tmp_path, range(0, 30, 5))
    MetricsCSV(tmp_path).log_metrics({"new": 1.0}, step=15)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "5", "10", "15"]
    assert rows(tmp_path)[-1] == {"epoch": "1", "step": "15", "loss": "15.0", "new": "1.0"}


def test_resume_step_zero_starts_a_new_table(tmp_path) -> None:
    fill(tmp_path, range(3))
    MetricsCSV(tmp_path, resume_step=0).log_metrics({"x": 1.0}, step=0)
    assert rows(tmp_path) == [{"step": "0", "x": "1.0"}]


def test_a_line_cut_in_the_writing_is_dropped_on_resume(tmp_path) -> None:
    fill(tmp_path, range(5))
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text()[:-5])
    MetricsCSV(tmp_path, resume_step=100).log_metrics({"loss": 9.0}, step=100)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3", "100"]


def test_a_number_cut_in_the_writing_is_not_taken_for_another_number(tmp_path) -> None:
    fill(tmp_path, range(3))
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "0,3,12.7")  # as many cells as columns: was it 12.75?
    MetricsCSV(tmp_path, resume_step=4).log_metrics({"loss": 4.0}, step=4)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "4"]


def test_last_values_are_those_of_each_metric_wherever_it_was_logged_last(tmp_path) -> None:
    table = MetricsCSV(tmp_path)
    table.log_metrics({"a": 1.5, "epoch": 0}, step=0)
    table.log_metrics({"a": 2.5, "b": float("inf"), "epoch": 0}, step=1)
    table.log_metrics({"a": 3.5, "epoch": 1}, step=2)
    assert last_values(tmp_path / "metrics.csv") == {"a": 3.5, "b": float("inf")}


def test_other_ranks_write_nothing(tmp_path, monkeypatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    MetricsCSV(tmp_path).log_metrics({"a": 1.0}, step=0)
    assert not list(tmp_path.iterdir())


class Regression(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss, on_step=True, on_epoch=False)
        self.log("train/mean", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder: Path, max_epochs: int, resume: Path | None = None) -> None:
    seed_everything(0, verbose=False)
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(24, 3)), batch_size=4)
    module = Regression()
    step = None if resume is None else torch.load(resume, weights_only=True)["global_step"]
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=MetricsCSV(folder, resume_step=step),
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, data, ckpt_path=resume, weights_only=True)


@pytest.mark.slow
def test_a_run_cut_and_resumed_has_the_table_of_an_uncut_one(tmp_path) -> None:
    fit(tmp_path / "uncut", 4)
    fit(tmp_path / "cut", 3)  # the last epoch will be done again
    fit(tmp_path / "cut", 4, resume=tmp_path / "cut" / "epoch=1.ckpt")
    uncut, cut = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("uncut", "cut"))
    pd.testing.assert_frame_equal(uncut, cut)
    assert len(uncut) == 12
    assert uncut["step"].is_monotonic_increasing
    assert uncut["val/loss"].notna().sum() == uncut["train/mean"].notna().sum() == 4
