"""A worker that dies is an error that names the image it was reading, not a hang."""

import os
import signal

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from fovea.data import FolderDataModule
from fovea.data.sources import FileSource
from fovea.errors import FoveaError


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        for name in ("dark", "light"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(8):
                pixels = np.full((9, 9, 3), 9 * i, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i:02d}.png")
    return tmp_path


@pytest.fixture
def deadly(monkeypatch):
    """Make the reading of one file kill the process that does it."""
    encoded = FileSource.encoded

    def read(self, number):
        if self.path(number).endswith("train/light/03.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return encoded(self, number)

    monkeypatch.setattr(FileSource, "encoded", read)


def folder(root):
    return FolderDataModule(
        str(root), image_size=8, batch_size=4, num_workers=2, in_memory=False
    )  # fmt: skip


def test_from_a_loader(root, deadly):
    with pytest.raises(FoveaError, match="Killed") as caught:
        for _ in folder(root).dataloader("train"):
            pass
    assert "train/light/03.png" in str(caught.value)
    assert "data.num_workers" in str(caught.value)


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)

    def training_step(self, batch, _):
        logits = self.net(batch.images.mean((2, 3)))
        return torch.nn.functional.cross_entropy(logits, batch.labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_in_a_run(root, deadly):
    data = folder(root)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, max_epochs=2,
    )  # fmt: skip
    with pytest.raises(FoveaError, match="Killed") as caught, data.explaining_dead_workers():
        trainer.fit(Net(), datamodule=data)
    assert "train/light/03.png" in str(caught.value)
