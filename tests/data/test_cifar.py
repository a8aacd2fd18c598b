import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from fovea.data import CIFARDataModule
from fovea.data.cifar import STATISTICS
from fovea.errors import FoveaError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar(root, **options):
    return CIFARDataModule(str(root), **{"batch_size": 4, "num_workers": 0, **options})


def write_batch(path, count, seed):
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = (np.arange(count) % 10).tolist()
    path.write_bytes(pickle.dumps({"data": data, "labels": labels}))
    return data.reshape(-1, 3, 32, 32), labels


@pytest.fixture
def replica(tmp_path, monkeypatch):
    """The python version of CIFAR-10 with 20 images a file; returns its parts and the folder."""
    folder = tmp_path / "source" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    lists = {"train_list": [f"data_batch_{i}" for i in range(1, 6)], "test_list": ["test_batch"]}
    parts = {}
    for number, (attribute, names) in enumerate(lists.items()):
        parts[attribute] = [
            write_batch(folder / n, 20, 10 * number + i) for i, n in enumerate(names)
        ]
        sums = [[n, hashlib.md5((folder / n).read_bytes()).hexdigest()] for n in names]
        monkeypatch.setattr(CIFAR10, attribute, sums)
    meta = folder / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": NAMES}))
    digest = hashlib.md5(meta.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": digest})
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")  # refused
    return folder, parts


def test_torchvisions_copy_is_read(replica):
    folder, parts = replica
    data = cifar(folder.parent)
    assert data.split_sizes == {"train": 90, "val": 10, "test": 20}
    assert data.class_names == NAMES
    assert data.class_counts("val") == [1] * 10
    images = torch.from_numpy(np.concatenate([images for images, _ in parts["train_list"]]))
    for split in ("train", "val"):
        dataset = data.dataset(split)
        for i in range(len(dataset)):
            name, number = dataset.path(i).rsplit("/", 1)
            assert name == "cifar10/train"
            assert torch.equal(dataset[i].images, images[int(number)])
            assert int(dataset.labels[i]) == int(number) % 20 % 10
    assert torch.equal(
        data.dataset("test")[3].images, torch.from_numpy(parts["test_list"][0][0][3])
    )


def test_an_archive_that_is_there_is_unpacked_without_a_network(replica, tmp_path, monkeypatch):
    folder, _ = replica
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / CIFAR10.filename, "w:gz") as tar:
        tar.add(folder, folder.name)
    digest = hashlib.md5((root / CIFAR10.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "tgz_md5", digest)
    assert cifar(root).split_sizes["test"] == 20


def test_without_network_it_says_what_to_put_where(replica, tmp_path):
    root = tmp_path / "nothing"
    with pytest.raises(FoveaError) as caught:
        cifar(root).prepare()
    message = str(caught.value)
    assert str(root / "cifar-10-python.tar.gz") in message
    assert CIFAR10.url in message
    assert CIFAR10.tgz_md5 in message
    assert "data=cifar10 data.root=" in message


def test_a_damaged_file_is_not_taken(replica):
    folder, _ = replica
    batch = folder / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with pytest.raises(FoveaError, match="could it be fetched"):
        cifar(folder.parent).prepare()


@pytest.fixture
def folders(tmp_path):
    random = np.random.default_rng(0)
    for split, count in {"train": 10, "test": 2}.items():
        for name in NAMES:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i:04d}.png")
    return tmp_path


def test_the_same_images_as_folders(folders):
    data = cifar(folders, val_fraction=0.1)
    assert data.split_sizes == {"train": 90, "val": 10, "test": 20}
    assert data.class_names == NAMES
    dataset = data.dataset("test")
    for i in range(20):
        with Image.open(dataset.path(i)) as image:
            assert (dataset[i].images.permute(1, 2, 0).numpy() == np.asarray(image)).all()


def test_folders_are_held_in_memory(folders):
    data = cifar(folders, in_memory=True, eval_batch_size=20)
    expected = torch.stack([sample.images for sample in data.dataset("test")])
    next(iter(data.dataloader("test")))
    for file in folders.rglob("*.png"):
        file.unlink()
    (batch,) = data.dataloader("test")
    assert torch.equal(batch.images, expected)


def test_unreadable_and_oversized_images_are_named(folders):
    path = folders / "test" / "cat" / "0000.png"
    path.write_bytes(b"")
    Image.new("RGB", (40, 32)).save(folders / "test" / "cat" / "0001.png")
    dataset = cifar(folders).dataset("test")
    assert len(dataset) == 20
    with pytest.raises(FoveaError, match="empty"):
        dataset[6]
    with pytest.raises(FoveaError, match="40x32 pixels, not 32x32"):
        dataset[7]


def test_another_set_of_classes_is_pointed_to_data_folder(folders):
    with pytest.raises(FoveaError, match="data=folder"):
        cifar(folders, num_classes=100).prepare()


def test_only_two_variants_exist(tmp_path):
    with pytest.raises(FoveaError, match="num_classes=20"):
        cifar(tmp_path, num_classes=20)


@pytest.mark.parametrize("num_classes", [10, 100])
def test_default_preprocessing(tmp_path, num_classes):
    data = cifar(tmp_path, num_classes=num_classes)
    assert data.image_shape == (3, 32, 32)
    assert (data.preprocessing.mean, data.preprocessing.std) == STATISTICS[num_classes]
