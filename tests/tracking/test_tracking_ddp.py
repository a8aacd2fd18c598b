import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SRC = Path(__file__).parents[2] / "src"

SCRIPT = """
import sys
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from fovea.tracking import EpochLines, MetricsCSV, wandb_logger

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss, sync_dist=True)
        return loss

    def on_train_epoch_end(self):
        self.log("train/top1", 0.5, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

if __name__ == "__main__":
    run = wandb_logger(sys.argv[1], run_id="ddp")
    run.log_hyperparams({"seed": 7})
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", devices=2, strategy="ddp", log_every_n_steps=2,
        logger=[MetricsCSV(sys.argv[1]), run], callbacks=[EpochLines()],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )
    torch.manual_seed(0)
    trainer.fit(Module(), DataLoader(TensorDataset(torch.randn(32, 3)), batch_size=4))
    run.finish({"a-summary": 1.0})
"""


@pytest.mark.slow
def test_two_ranks_leave_one_table_one_wandb_run_and_one_set_of_lines(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    run = subprocess.run(
        [sys.executable, script, tmp_path / "run"],
        env={**inherited, "PYTHONPATH": str(SRC), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert [line[:9] for line in run.stdout.splitlines() if line.startswith("epoch")] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3",
    ]  # fmt: skip
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["step"].tolist() == [1, 3, 5, 7, 9, 11]
    assert table["train/top1"].notna().sum() == 3
    (log,) = (tmp_path / "run" / "wandb").rglob("run-*.wandb")
    assert b"a-summary" in log.read_bytes()
    assert b"seed" in log.read_bytes()
