import logging
import re

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from fovea.tracking import EpochLines


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss, on_step=True, on_epoch=False)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/top1", 0.5 + self.current_epoch / 100)  # after all callbacks' hooks

    def validation_step(self, batch, batch_idx):
        self.log_dict({"val/loss": 0.123456, "val/top1": 0.875, "val/balanced_accuracy": 0.25})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(tmp_path, callback, **options) -> None:
    data = DataLoader(TensorDataset(torch.randn(24, 3)), batch_size=4)
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[callback, ModelCheckpoint(tmp_path, monitor="val/balanced_accuracy")],
        logger=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(Module(), data, data)


def test_a_line_an_epoch_where_there_is_no_terminal(tmp_path, capsys) -> None:
    fit(tmp_path, EpochLines(), max_epochs=12, enable_progress_bar=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 12
    pattern = (
        r"epoch {n}/12  step {s}  train/loss \d\.\d+(e-\d+)?  train/top1 {t}  "
        r"val/loss 0\.1235  val/top1 0\.8750  val/balanced_accuracy 0\.2500  "
        r"\d+\.\d s  ETA \d+:\d\d"
    )
    for n, line in enumerate(lines, 1):
        expected = pattern.replace("{n}", f"{n:>2}").replace("{s}", str(6 * n))
        expected = expected.replace("{t}", rf"0\.{49 + n}00")
        assert re.fullmatch(expected, line), line
    assert lines[-1].endswith("ETA 0:00")


def test_lines_stand_beside_the_progress_bar(tmp_path, capsys) -> None:
    fit(tmp_path, EpochLines(), max_epochs=2, enable_progress_bar=True)
    out = capsys.readouterr().out
    lines = re.split(r"[\r\n]+", out)
    assert sum(line.startswith("epoch ") for line in lines) == 2


def test_validation_scores_are_not_repeated_in_epochs_without_validation(tmp_path) -> None:
    lines: list[str] = []
    fit(
        tmp_path,
        EpochLines(write=lines.append),
        max_epochs=4,
        check_val_every_n_epoch=2,
        enable_progress_bar=False,
    )
    assert ["val/top1" in line for line in lines] == [False, True, False, True]


def test_lines_go_to_the_log_where_there_is_one(tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO, logger="fovea"):
        fit(tmp_path, EpochLines(), max_epochs=1, enable_progress_bar=False)
    assert [r.message[:9] for r in caplog.records if r.name.startswith("fovea")] == ["epoch 1/1"]


def test_a_run_without_an_end_has_no_eta(tmp_path) -> None:
    lines: list[str] = []
    fit(
        tmp_path,
        EpochLines(write=lines.append),
        max_epochs=-1,
        max_time={"seconds": 1},
        enable_progress_bar=False,
    )
    assert lines
    assert all("ETA" not in line for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.98765, "0.9877"),
        (2.0e-5, "2.00e-05"),
        (12345.6, "1.23e+04"),
        (1897.5, "1898"),
    ],
)
def test_numbers_are_short(value, text) -> None:
    from fovea.tracking.progress import _short

    assert _short(value) == text
