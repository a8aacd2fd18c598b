"""A run that had been stopped early stays stopped, until it is given more patience."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from fovea.tasks import EarlyStopping


class NoProgress(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Save(lightning.Callback):
    """At the end of each epoch: before the trainer acts on what early stopping asked for."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_start(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"before{trainer.current_epoch}.ckpt")

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "end.ckpt")


def fit(folder, patience, checkpoint=None):
    batches = DataLoader(torch.ones(4, 1), batch_size=2)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=9, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        callbacks=[EarlyStopping("val/loss", patience=patience), Save(folder)],
    )  # fmt: skip
    trainer.fit(NoProgress(), batches, batches, ckpt_path=checkpoint)
    return trainer.global_step


@pytest.fixture
def stopped(tmp_path):
    assert fit(tmp_path, patience=2) == 3 * 2, "one epoch sets the score, two more do not better it"
    return tmp_path / "end.ckpt"


def test_it_makes_no_further_step(stopped, tmp_path):
    assert fit(tmp_path, 2, stopped) == 3 * 2


def test_more_patience_lets_it_go_on_and_the_wait_so_far_counts(stopped, tmp_path):
    assert fit(tmp_path, 5, stopped) == 6 * 2
