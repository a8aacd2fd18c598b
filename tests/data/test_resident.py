"""Splits held in memory give the batches that loading them gives."""

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from fovea.data import Augment, DigitsDataModule, FolderDataModule, resident
from fovea.data.dataset import ImageLoader
from fovea.data.resident import ResidentLoader
from fovea.errors import FoveaError


@pytest.fixture
def root(tmp_path):
    random = np.random.default_rng(0)
    for split, count in {"train": 15, "val": 7}.items():
        for name in ("dark", "light"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i:02d}.png")
    return tmp_path


def folder(root, **options):
    common = {"batch_size": 8, "num_workers": 0, "image_size": 16, "augment": Augment()}
    return FolderDataModule(str(root), **{**common, **options})


def finished(data, loader):
    """Return the batches as the network sees them, as lists that can be compared."""
    for batch in loader:
        whole = data.on_after_batch_transfer(batch, 0)
        yield [None if part is None else part.tolist() for part in whole]


def same(held, loaded, split):
    pair = [
        data.train_dataloader() if split == "train" else data.dataloader(split)
        for data in (held, loaded)
    ]
    assert isinstance(pair[0], ResidentLoader)
    assert isinstance(pair[1], ImageLoader)
    assert len(pair[0]) == len(pair[1])
    ours, theirs = (list(finished(d, p)) for d, p in zip((held, loaded), pair, strict=True))
    assert ours == theirs
    return ours


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("options", [{}, {"channels": 1}, {"repeats": 2}], ids=str)
def test_batches_are_the_same_from_memory_as_from_files(root, split, options, workers):
    held = folder(root, in_memory=True, num_workers=workers, **options)
    batches = same(held, folder(root, in_memory=False, **options), split)
    assert len(batches) == (3 if split == "train" else 2)
    held.epoch = 1
    if split == "train":
        assert list(finished(held, held.train_dataloader())) != batches


def test_images_in_memory_are_held_without_being_asked():
    same(DigitsDataModule(augment=Augment()), DigitsDataModule(
        augment=Augment(), in_memory=False, num_workers=0), "train")  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val"])
def test_unreadable_images_are_treated_alike(root, split):
    for name in ("train/dark/14", "train/light/03", "train/light/04", "val/light/01"):
        (root / f"{name}.png").write_bytes(b"no image")
    held = folder(root, in_memory=True, on_bad_image="skip", batch_size=15)
    same(held, folder(root, in_memory=False, on_bad_image="skip", batch_size=15), split)


def test_unreadable_images_are_an_error(root):
    (root / "train" / "dark" / "03.png").write_bytes(b"no image")
    with pytest.raises(FoveaError, match=r"train/dark/03\.png"):
        folder(root, in_memory=True).train_dataloader()


def test_all_unreadable_is_an_error(root):
    for file in root.glob("train/*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(FoveaError, match="Not one of the training images"):
        folder(root, in_memory=True, on_bad_image="skip").train_dataloader()


def test_a_policy_works_on_held_images(root):
    options = {"augment": Augment(policy="randaug"), "image_size": 16}
    held, loaded = folder(root, in_memory=True, **options), folder(root, in_memory=False, **options)
    loaders = held.train_dataloader(), loaded.train_dataloader()
    for file in root.glob("train/*/*.png"):
        file.rename(file.with_suffix(".moved"))
    ours = list(finished(held, loaders[0]))
    for file in root.glob("train/*/*.moved"):
        file.rename(file.with_suffix(".png"))
    assert ours == list(finished(loaded, loaders[1]))


def test_resized_crops_are_cut_from_the_original_images(root):
    data = folder(root, in_memory=True, augment=Augment(crop="resized"))
    assert isinstance(data.train_dataloader(), ImageLoader)
    assert isinstance(data.dataloader("val"), ResidentLoader)


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)

    def training_step(self, batch, _):
        logits = self.net(batch.images.mean((2, 3)))
        return torch.nn.functional.cross_entropy(logits, batch.labels)

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({}, {}, ResidentLoader),
        ({}, {"in_memory": False}, ImageLoader),
        ({"max_epochs": 1}, {}, ImageLoader),
        ({"limit_train_batches": 1}, {}, ImageLoader),
        ({"max_epochs": 1}, {"in_memory": True}, ResidentLoader),
    ],
)
def test_what_is_held_in_a_run(root, settings, options, expected):
    data = folder(root, **options)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **{"max_epochs": 2, **settings},
    )  # fmt: skip
    trainer.fit(Net(), datamodule=data)
    assert isinstance(trainer.train_dataloader, expected)


def test_what_does_not_fit_is_read_from_files(root, monkeypatch):
    data = folder(root, memory_fraction=0.5)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, max_epochs=2,
    )  # fmt: skip
    # Half of it is enough for the 30 images of train, or for the 14 of val, and not for both.
    monkeypatch.setattr("fovea.data.module.free_memory", lambda: 2 * 30 * 3 * 16 * 16)
    trainer.fit(Net(), datamodule=data)
    loaders = [type(trainer.train_dataloader), type(trainer.val_dataloaders)]
    assert sorted(loader.__name__ for loader in loaders) == ["ImageLoader", "ResidentLoader"]


def test_free_memory_is_what_linux_says():
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(fields["MemTotal"].split()[0]) * 1024
    assert 0 < resident.free_memory() <= total
