"""Batches from reused memory are never overwritten while anything refers to them."""

import gc

import numpy as np
import pytest
import torch
from PIL import Image

from fovea.data import Augment, FolderDataModule
from fovea.data.slots import SLOTS_A_WORKER, BatchSlots, FilledSlot


@pytest.fixture
def root(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(60):
            pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:02d}.png")
    return tmp_path


def folder(root, workers):
    return FolderDataModule(
        str(root), image_size=16, batch_size=4, num_workers=workers, in_memory=False,
        augment=Augment(crop="resized"),
    )  # fmt: skip


def test_batches_that_are_kept_stay_as_they_were(root):
    alone = [batch.images.clone() for batch in folder(root, 0).train_dataloader()]
    data = folder(root, 2)
    loader = data.train_dataloader()
    kept = [batch.images for batch in loader]  # far more than there are places
    assert len(kept) > 2 * SLOTS_A_WORKER
    assert all(torch.equal(a, b) for a, b in zip(kept, alone, strict=True))
    # A part of a batch keeps all of its memory, also when the batch itself is gone.
    parts = [batch.images[1:3] for batch in loader]
    assert all(torch.equal(a, b[1:3]) for a, b in zip(parts, alone, strict=True))


def taken(loader):
    gc.collect()
    return int(loader.images.slots._taken.sum())


def test_places_are_free_again(root):
    loader = folder(root, 2).train_dataloader()
    for _ in range(2):
        for batch in loader:
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
        del batch
    assert taken(loader) == 0
    for step, _ in enumerate(loader):
        if step == 3:
            break  # the rest of what the workers made is thrown away
    del _
    whole = sum(len(batch.labels) for batch in loader)
    assert whole == len(loader) * 4
    assert taken(loader) == 0


def test_a_worker_takes_its_own_free_places_only():
    slots = BatchSlots(2, (1, 2, 2, 3))
    mine = [slots.take(1) for _ in range(SLOTS_A_WORKER + 1)]
    assert mine == [*range(SLOTS_A_WORKER, 2 * SLOTS_A_WORKER), None]
    assert slots.take(0) == 0
    slots.pixels(mine[2], 1).fill_(7)
    batch = FilledSlot(slots.key, mine[2], 1).images()
    view = batch[0, 0]
    del batch
    assert slots.take(1) is None
    assert (view == 7).all()
    del view
    gc.collect()
    assert slots.take(1) == mine[2]
