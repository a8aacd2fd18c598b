import fcntl
import logging
import os
import pty
import re
import struct
import sys
import termios
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from fovea.tracking import EpochLines, ProgressBar
from process import ROOT, environment


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


def test_the_bar_looks_at_the_numbers_at_an_interval_and_never_between(
    tmp_path, monkeypatch, capsys
) -> None:
    looks = []
    look = ProgressBar._show
    monkeypatch.setattr(ProgressBar, "_show", lambda *a: (looks.append(1), look(*a)))
    for refresh_s, expected in ((1e6, 1 + 12), (1e-9, 72 + 12)):  # the first one, ends of epochs
        looks.clear()
        fit_with_bar(tmp_path, ProgressBar(refresh_s))
        assert len(looks) == expected
    assert "100%" not in capsys.readouterr().out.split("epoch 12/12")[0]


def fit_with_bar(tmp_path, bar) -> None:
    data = DataLoader(TensorDataset(torch.randn(24, 3)), batch_size=4)
    trainer = Trainer(
        accelerator="cpu", callbacks=[bar, EpochLines()], logger=False, max_epochs=12,
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Module(), data)


def on_a_terminal(command, cwd, columns) -> tuple[int, str]:
    """Run ``command`` on a terminal of so many columns; return its status and what it showed."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.execve(command[0], command, environment())
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # Linux: the process has closed it
        pass
    return os.waitpid(process, 0)[1], shown.decode()


@pytest.mark.slow
def test_what_is_shown_on_a_terminal(tmp_path) -> None:
    words = (
        "model=timm", "model.name=test_resnet", "data.limit_per_class=32", "data.batch_size=16",
        "trainer.max_epochs=3", "logger=none", "callbacks.progress.refresh_s=0.001",
    )  # fmt: skip
    status, shown = on_a_terminal(
        [sys.executable, str(ROOT / "src" / "train.py"), *words], tmp_path, columns=100
    )
    assert status == 0, shown
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[\w", "", shown))
    bars = [line for line in lines if line.startswith("epoch") and "|" in line]
    figures = (
        r"epoch \d/3  ETA \d+:\d\d  loss \d\.\d+  top1 \d\.\d+  [\d,]+ img/s  wait \d+% \|.*\|"
    )
    complete = [line.rstrip() for line in bars if re.fullmatch(figures, line.rstrip())]
    assert len(complete) > 20, bars
    assert all(len(line) <= 100 for line in complete)
    assert {line[:9] for line in complete} == {"epoch 1/3", "epoch 2/3", "epoch 3/3"}
    shares = [line.count("█") / (len(line.split("|")[1]) or 1) for line in complete]
    steps = pairwise(shares)
    assert all(after > before - 0.06 for before, after in steps), "one bar for the whole run"
    assert shares[0] < 0.3
    assert shares[-1] > 0.9
    epochs = [line for line in lines if re.match(r"epoch \d/3  step \d+  train/loss", line)]
    assert [line.split()[3] for line in epochs] == ["20", "40", "60"]
    log = next(tmp_path.glob("outputs/*/train.log")).read_text()
    assert "img/s" not in log
    assert len(re.findall(r"epoch \d/3  step", log)) == 3
