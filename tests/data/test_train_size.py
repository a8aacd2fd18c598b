"""Sizes of training images that differ from evaluation's, and grow; timm's RandAugment."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from fovea.data import Augment, FolderDataModule
from fovea.data.sampling import SampleKey
from fovea.data.timm_policy import TimmPolicy
from fovea.errors import FoveaError


def ffcv_size(epoch, least, most, start, end):
    """Return what ffcv-imagenet's ``get_resolution`` does, by its formula."""
    if epoch <= start:
        return least
    if epoch >= end:
        return most
    return int(np.round(np.interp([epoch], [start, end], [least, most])[0] / 32)) * 32


@pytest.mark.parametrize("ramp", [(11, 13), (17, 20), (65, 76)])
@pytest.mark.parametrize("sides", [(160, 192), (96, 224)])
def test_the_size_grows_as_ffcvs(ramp, sides):
    augment = Augment(size=sides[1], start_size=sides[0], grow=ramp)
    sizes = [augment.train_size.at(256, epoch) for epoch in range(90)]
    assert sizes == [ffcv_size(epoch, *sides, *ramp) for epoch in range(90)]
    assert augment.train_size.largest(256) == sides[1]
    assert f"to {sides[0]}, growing to {sides[1]}" in augment.describe(256, True)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in ("a", "b"):
            place = tmp_path / split / label
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (120, 130, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.jpg")
    return tmp_path


def module(folder, workers=0, **augment):
    settings = {"image_size": 96, "batch_size": 8, "num_workers": workers, "in_memory": False}
    return FolderDataModule(root=folder, augment=Augment(**augment), **settings)


def test_training_and_evaluation_have_their_own_sizes(folder):
    data = module(folder, size=64)
    data.prepare()
    assert next(iter(data.train_dataloader())).images.shape == (8, 3, 64, 64)
    assert next(iter(data.val_dataloader())).images.shape == (8, 3, 96, 96)
    assert data.image_shape == (3, 96, 96)
    assert dict(data.describe())["train images"].startswith(
        "random crop of 0.08-1 of the area to 64"
    )


class Watch(LightningModule):
    """Notes the epoch, size and content of each batch."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        image = batch.images
        self.seen.append((self.current_epoch, image.shape[-1], batch.indices.tolist(), image.sum()))
        return self.net(image.mean().view(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(folder, tmp, workers, ckpt=None):
    task = Watch()
    fifth = ModelCheckpoint(tmp, "step{step}", every_n_train_steps=5, save_top_k=-1)
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", logger=False, callbacks=[fifth], default_root_dir=tmp,
        enable_progress_bar=False, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    data = module(folder, workers, size=96, start_size=32, grow=(0, 2))
    trainer.fit(task, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return task.seen


def test_it_grows_with_the_epoch_in_workers_and_after_a_resume(folder, tmp_path):
    whole = run(folder, tmp_path, workers=0)
    cut = tmp_path / "stepstep=5.ckpt"
    sizes = [size for _, size, _, _ in whole]
    assert sizes == [32] * 3 + [64] * 3 + [96] * 3
    assert run(folder, tmp_path, workers=1) == whole
    assert run(folder, tmp_path, workers=1, ckpt=cut) == whole[5:]


def test_a_batch_that_failed_is_made_once_more_at_the_size_it_had(folder):
    data = module(folder, size=96, start_size=32, grow=(0, 2))
    data.prepare()
    dataset = data.train_dataloader().images
    batch = dataset.batch([SampleKey(index, epoch=1) for index in range(4)])
    dataset.batch([SampleKey(0, epoch=2)])
    again = dataset.remake(batch.indices, batch.seeds, epoch=1)
    assert again.shape == (4, 3, 64, 64)
    assert torch.equal(again, batch.images)


def test_timms_policy_is_timms():
    words, settings = "rand-m9-mstd0.5-inc1", {"translate_const": 28, "img_mean": (124, 116, 104)}
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    policy = TimmPolicy(words, 64)
    changed = set()
    for seed in range(12):
        torch.manual_seed(seed)
        got = policy(image)
        torch.manual_seed(seed)
        drawn = int(torch.randint(2**32, ()))
        random.seed(drawn)
        np.random.seed(drawn)
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = np.asarray(rand_augment_transform(words, settings)(picture))
        assert np.array_equal(got.permute(1, 2, 0).numpy(), expected)
        changed.add(not torch.equal(got, image))
    assert True in changed
    assert policy(image[:1]).shape == (1, 64, 64)


def test_timms_policy_leaves_the_generators_of_others_alone():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    TimmPolicy("rand-m9", 32)(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 32, "crop": "pad"}, r"augment\.crop=pad.*crop=resized"),
        ({"start_size": 32}, "start_size and augment.grow go together"),
        ({"start_size": 32, "grow": (3, 3)}, r"grow=\[3, 3\]"),
        ({"policy": "rand-x9"}, "policy=rand-x9 is not one of"),
    ],
)
def test_what_is_wrong_is_said(settings, said):
    with pytest.raises(FoveaError, match=said):
        Augment(**settings)
