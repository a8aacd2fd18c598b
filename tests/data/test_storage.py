"""Storage that goes away is waited for, told of once, and never taken for bad images."""

import errno
import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fovea.data import Augment, images, shards, storage
from fovea.data.folder import FolderDataModule
from fovea.data.images import UnreadableImage, read_file
from fovea.data.index import list_images
from fovea.data.storage import StorageError


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(storage, "PAUSES_S", (0.01, 0.02, 0.4))
    storage._told[0] = 0


@pytest.fixture
def root(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def data_of(root: Path, **options) -> FolderDataModule:
    settings = {"batch_size": 4, "image_size": 8, "num_workers": 0, "in_memory": False} | options
    return FolderDataModule(root=str(root), augment=Augment(crop="none"), **settings)


def failing(times: int, code: int, calls: list[str]):
    real = images._content

    def content(path):
        calls.append(path)
        if len(calls) <= times:
            raise OSError(code, os.strerror(code))
        return real(path)

    return content


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ETIMEDOUT", "ECONNRESET", "EAGAIN"])
def test_a_fault_of_the_network_is_waited_for(root, monkeypatch, caplog, name) -> None:
    calls: list[str] = []
    monkeypatch.setattr(images, "_content", failing(3, getattr(errno, name), calls))
    path = str(root / "cat" / "0.png")
    assert read_file(path, root) == Path(path).read_bytes()
    assert len(calls) == 4
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 2
    assert path in said[0]
    assert os.strerror(getattr(errno, name)) in said[0]
    assert "can be read again" in said[1]


@pytest.mark.parametrize("on_bad_image", ["error", "skip", "report"])
def test_storage_that_stays_away_ends_the_run_and_is_no_bad_image(
    root, monkeypatch, on_bad_image
) -> None:
    data = data_of(root, on_bad_image=on_bad_image)
    data.prepare()
    monkeypatch.setattr(images, "_content", failing(10**9, errno.EIO, []))
    with pytest.raises(StorageError, match=r"(?s)cat|dog.*can't be read: .*resume=auto"):
        next(iter(data.train_dataloader()))
    assert data.bad_images() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_folder_that_is_moved_away_and_back(root, num_workers) -> None:
    data = data_of(root, on_bad_image="skip", num_workers=num_workers)
    loader = data.train_dataloader()
    whole = [batch.indices for batch in loader]

    def away_for_a_while() -> None:
        root.rename(root.with_name("elsewhere"))
        time.sleep(0.2)
        root.with_name("elsewhere").rename(root)

    mover = threading.Thread(target=away_for_a_while)
    mover.start()
    again = [batch.indices for batch in loader]
    mover.join()
    assert torch.equal(torch.cat(again), torch.cat(whole))
    assert min(torch.cat(again)) >= 0


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("leave", ["nothing", "an empty folder"])
def test_a_folder_that_is_gone_is_named(root, num_workers, leave) -> None:
    data = data_of(root, on_bad_image="skip", num_workers=num_workers)
    loader = data.train_dataloader()
    root.rename(root.with_name("elsewhere"))
    if leave == "an empty folder":
        root.mkdir()  # what an unmounted disk leaves
    with pytest.raises(StorageError, match=r"\d+\.png can.t be read: No such file"):
        list(loader)


def test_a_file_that_is_missing_or_closed_is_a_bad_image(root) -> None:
    (root / "cat" / "3.png").unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        read_file(str(root / "cat" / "3.png"), root)
    with pytest.raises(UnreadableImage, match="Is a directory"):
        read_file(str(root / "cat"), root)
    with pytest.raises(UnreadableImage, match="No such file"):
        read_file("/nowhere/at/all.png")


def test_a_shard_on_a_server_that_forgot_it_is_opened_anew(tmp_path, monkeypatch) -> None:
    from fovea.data.shard_folder import LocalFolder
    from fovea.data.shard_index import Rows, StoredFile

    (tmp_path / "a.tar").write_bytes(bytes(range(100)))
    rows = Rows.of(torch.tensor([[0, 10, 5]]), torch.tensor([0]), np.array([b"cat/1.png"]))
    shard = StoredFile.of(tmp_path / "a.tar")
    source = shards.ShardSource(LocalFolder(tmp_path), [shard], rows)
    real, calls = os.pread, []

    def pread(*arguments):
        calls.append(arguments[0])
        if len(calls) < 3:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(*arguments)

    monkeypatch.setattr(os, "pread", pread)
    assert source.encoded(0) == bytes(range(10, 15))
    monkeypatch.setattr(os, "pread", real)
    (tmp_path / "a.tar").unlink()
    shards._opened.cache_clear()
    with pytest.raises(StorageError, match=r"a\.tar can't be read: No such file"):
        source.encoded(0)


def test_listing_waits_as_well(root, monkeypatch, caplog) -> None:
    from fovea.data import index

    real, calls = index.walk_images, []

    def walk(folder):
        calls.append(folder)
        if len(calls) <= 2:
            raise OSError(errno.ETIMEDOUT, "Connection timed out")
        return real(folder)

    monkeypatch.setattr(index, "walk_images", walk)
    with caplog.at_level(logging.WARNING):
        assert len(list_images(root, "", ["cat", "dog"]).paths) == 24
