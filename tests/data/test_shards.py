import contextlib
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
import torch

from fovea.data import FolderDataModule, ShardsDataModule, UnreadableImage, shard_folder
from fovea.data.augment import Augment
from fovea.data.sampling import Position, Share
from fovea.data.shards import REMOTE_WINDOW
from fovea.errors import FoveaError
from fovea.experiment import build_data, compose
from shard_tools import make_shards, photo_folder

SMALL_SHARDS = "shard_mb=0.006"  # of two or three images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = photo_folder(tmp_path_factory.mktemp("photos"), {"train": 20, "val": 9})
    (root / "train" / "cat" / "été 1.jpg").write_bytes((root / "train/cat/0.jpg").read_bytes())
    return root


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    return make_shards(photos, tmp_path_factory.mktemp("made") / "shards", SMALL_SHARDS)


@pytest.fixture
def shards(made, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(made, tmp_path / "shards")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_folder, "_PAUSE", 0.0)
    return tmp_path / "cache"


def options(**given):
    return {"batch_size": 8, "num_workers": 0, "image_size": 72, "in_memory": False, **given}


def sharded(root, **given):
    return ShardsDataModule(str(root), **options(**given))


def error_of(root, **given):
    with pytest.raises(FoveaError) as caught:
        sharded(root, **given).prepare()
    return str(caught.value)


def tensors(batch):
    return [part for part in batch if part is not None]


def read(loader):
    """All batches; the workers end here, and not when the loader is found to be garbage."""
    batches = list(loader)
    loader._stop_workers()
    return batches


def entry(root, split, file):
    """The record of ``file``, and where in it the first image of ``split`` lies."""
    data = sharded(root)
    source = data.splits[split].source
    place, offset, size = source.places[0].tolist()
    return root / source.shards[place].name, offset, size


def test_training_and_evaluation_see_what_they_see_of_the_folder(photos, made):
    augment = {"augment": Augment(crop="resized", flip=0.5), "seed": 5}
    shards, folder = sharded(made, **augment), FolderDataModule(str(photos), **options(**augment))
    assert shards.class_names == folder.class_names == ["cat", "dog"]
    assert shards.split_sizes == {"train": 41, "val": 18}
    assert shards.split_fingerprints() == folder.split_fingerprints()
    assert shards.preprocessing == folder.preprocessing
    for epoch in range(2):
        shards.epoch = folder.epoch = epoch
        for ours, theirs in zip(shards.train_dataloader(), folder.train_dataloader(), strict=True):
            assert all(map(torch.equal, tensors(ours), tensors(theirs)))
    for ours, theirs in zip(shards.val_dataloader(), folder.val_dataloader(), strict=True):
        assert all(map(torch.equal, tensors(ours), tensors(theirs)))


def test_a_subset_is_the_same_as_of_the_folder(photos, made):
    part = {"fraction": 0.5, "split_seed": 3}
    folder = FolderDataModule(str(photos), **options(**part))
    assert sharded(made, **part).split_fingerprints() == folder.split_fingerprints()


def test_names_say_where_an_image_is_and_what_it_was(photos, made):
    dataset = sharded(made).dataset("train")
    paths = [dataset.path(i) for i in range(len(dataset))]
    shard, original = paths[0].split(".tar/")
    assert shard.startswith(f"{made}/train-0000")
    assert original == "train/cat/0.jpg"
    assert any(path.endswith("train/cat/été 1.jpg") for path in paths)


def test_many_names_at_once_are_those_one_by_one(made):
    split = sharded(made).splits["train"]
    numbers = split.numbers.flip(0)
    one_by_one = [split.source.relative_path(number).encode() for number in numbers.tolist()]
    assert split.source.relative_paths(numbers).tolist() == one_by_one


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch_exactly(made, world, window, monkeypatch):
    def batches(world, rank, split):
        data = sharded(made, batch_size=6, eval_batch_size=4, shuffle_window=window)
        monkeypatch.setattr(data, "_share", lambda: Share(world, rank))
        loader = data.train_dataloader() if split == "train" else data.dataloader(split)
        return [batch.indices.tolist() for batch in loader]

    alone = batches(1, 0, "train")
    ranks = [batches(world, rank, "train") for rank in range(world)]
    together = [sorted(i for step in steps for i in step) for steps in zip(*ranks, strict=True)]
    assert together == [sorted(step) for step in alone]
    seen = [i for rank in range(world) for batch in batches(world, rank, "val") for i in batch]
    assert sorted(i for i in seen if i != -1) == list(range(18))


def test_workers_change_nothing(made):
    alone = read(sharded(made, shuffle_window=2).train_dataloader())
    with_workers = read(sharded(made, shuffle_window=2, num_workers=2).train_dataloader())
    for one, two in zip(alone, with_workers, strict=True):
        assert all(map(torch.equal, tensors(one), tensors(two)))


def test_a_window_comes_to_the_shards_one_after_the_other(made):
    data = sharded(made, shuffle_window=3)
    order = data._epoch_order(data.splits["train"].labels)
    shards = data.splits["train"].source.places[:, 0]
    count = int(shards.max()) + 1
    assert count >= 14
    visits = []
    for epoch in range(2):
        indices, _ = order.entries(epoch)
        assert sorted(indices.tolist()) == list(range(41))
        assert torch.equal(indices, order.entries(epoch)[0])
        seen = shards[indices].tolist()
        firsts = [seen.index(shard) for shard in range(count)]
        lasts = [len(seen) - 1 - seen[::-1].index(shard) for shard in range(count)]
        for place in range(len(seen)):
            begun = sum(first <= place for first in firsts)
            ended = sum(last < place for last in lasts)
            assert begun - ended <= 3
        # Inside a window the shards are mixed, and no shard comes as it was written.
        assert any(a > b for a, b in zip(seen, seen[3:], strict=False))
        visits.append(list(dict.fromkeys(seen)))
    assert visits[0] != visits[1]
    assert visits[0] != sorted(visits[0])


def test_without_a_window_the_order_is_that_of_any_data_set(made):
    data = sharded(made)
    assert data._epoch_order(data.splits["train"].labels).window is None
    assert not [value for what, value in data.describe() if what == "shuffling"]
    windowed = sharded(made, shuffle_window=3)
    assert dict(windowed.describe())["shuffling"].startswith("3 of ")


def test_a_resumed_epoch_goes_on_where_it_was(made, monkeypatch):
    data = sharded(made, shuffle_window=2)
    whole = [batch.indices.tolist() for batch in data.train_dataloader()]
    monkeypatch.setattr(data, "_position", lambda: Position(0, 3))
    assert [batch.indices.tolist() for batch in data.train_dataloader()] == whole[3:]


def test_a_window_and_balanced_sampling_exclude_each_other(made):
    assert "shuffle_window=null" in error_of(made, shuffle_window=4, sampling="balanced")
    data = sharded(f"file://{made}", sampling="balanced")
    assert data._epoch_order(data.splits["train"].labels).window is None
    assert "at least 1" in error_of(made, shuffle_window=0)


def test_the_configuration_builds_it(made):
    data = build_data(compose(["data=shards", f"data.root={made}", "data.shuffle_window=7"]))
    assert isinstance(data, ShardsDataModule)
    assert data.shuffle_window == 7
    with pytest.raises(FoveaError, match=r"data\.shuffle_window='all'"):
        compose(["data=shards", f"data.root={made}", "data.shuffle_window=all"])


# What can be wrong with a folder.


def test_a_folder_without_shards(tmp_path):
    message = error_of(tmp_path)
    assert "index.json" in message
    assert "scripts/prepare_shards.py" in message


def test_a_missing_shard_is_named(shards):
    (shards / "train-000003.tar").unlink()
    message = error_of(shards)
    assert "train-000003.tar" in message
    assert "scripts/prepare_shards.py" in message  # the command that made it, and mends it


def test_a_cut_shard_is_named(shards):
    path = shards / "train-000002.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-512])
    message = error_of(shards)
    assert str(path) in message
    assert f"{size:,}" in message
    assert f"{size - 512:,}" in message


@pytest.mark.parametrize("text", ["", "{", '{"format": 1}', "[]", "\0"])
def test_a_damaged_index(shards, text):
    (shards / "index.json").write_text(text)
    assert "index.json is damaged" in error_of(shards)


@pytest.mark.parametrize("extra", [{}, {"compression": "zstd"}])
def test_an_index_of_a_later_format(shards, extra):
    file = shards / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2, **extra}))
    message = error_of(shards)
    assert "format 2" in message
    assert "Update fovea" in message


def test_rows_of_another_set(shards):
    shutil.copy(shards / "val.npz", shards / "train.npz")
    assert "train.npz" in error_of(shards)


@pytest.mark.parametrize(
    ("name", "row", "value", "said"),
    [
        ("labels", 0, 2, "2 classes"),
        ("labels", 3, -1, "2 classes"),
        ("places", 1, [99, 512, 10], "shards"),
        ("places", 1, [0, 512, 10**7], "end of a shard"),
        ("places", 1, [0, -5, 10], "shards"),
    ],
)
def test_rows_that_cannot_be(shards, name, row, value, said):
    file = shards / "train.npz"
    arrays = dict(np.load(file))
    arrays[name][row] = value
    np.savez(file, **arrays)
    record(shards, file)
    assert said in error_of(shards)
    assert "train.npz" in error_of(shards)


def record(shards, file):
    """Make the index list ``file`` as it is now."""
    index = json.loads((shards / "index.json").read_text())
    new = list(shard_folder.StoredFile.of(file))
    for split in index["splits"].values():
        split["rows"] = new if split["rows"][0] == file.name else split["rows"]
        split["shards"] = [new if old[0] == file.name else old for old in split["shards"]]
    (shards / "index.json").write_text(json.dumps(index))


def test_rows_that_lack_an_image(shards):
    file = shards / "train.npz"
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, "labels": arrays["labels"][:-1]})
    record(shards, file)
    assert "40 images, not 41" in error_of(shards)


def test_a_split_that_is_not_there(made):
    with pytest.raises(FoveaError, match="no test split"):
        sharded(made).dataset("test")


def test_a_broken_image_is_named_and_can_be_skipped(shards):
    path, offset, size = entry(shards, "val", 0)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    with pytest.raises(UnreadableImage, match=rf"{path}/val/cat/0\.jpg"):
        list(sharded(shards, num_workers=1).val_dataloader())
    seen = [b.indices.tolist() for b in sharded(shards, on_bad_image="skip").val_dataloader()]
    assert seen[0][0] == -2
    assert sorted(i for batch in seen for i in batch)[-17:] == list(range(1, 18))


def test_check_compares_checksums_and_reads_all(shards):
    assert sharded(shards).num_files() == 59
    assert sharded(shards).check() == []
    path, offset, size = entry(shards, "val", 0)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    damaged, image = sharded(shards).check()
    assert damaged.path == str(path)
    assert "checksum" in damaged.reason
    assert image.path == f"{path}/val/cat/0.jpg"
    assert not image.readable


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [True, False])
def test_a_shard_lost_on_the_way_is_an_error_not_a_bad_image(shards, workers, cut):
    data = sharded(shards, num_workers=workers, on_bad_image="skip")
    loader = data.val_dataloader()
    path = shards / data.splits["val"].source.shards[0].name
    if cut:
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(FoveaError, match=r"val-000000\.tar"):
        list(loader)


# Shards behind a URL.


class Server(http.server.ThreadingHTTPServer):
    """Serves ``root`` and notes what is asked for."""

    def __init__(self, root):
        self.root, self.fetched = root, []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, request, address, server):
        super().__init__(request, address, server, directory=str(server.root))

    def do_GET(self):
        self.server.fetched.append(self.path.removeprefix("/"))
        super().do_GET()

    def log_message(self, *words):
        pass


@pytest.fixture
def server(shards):
    server = Server(shards)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.closing(server.socket):
        yield server
        server.shutdown()


def test_a_file_url_gives_what_the_folder_gives(made):
    there = sharded(f"file://{made}", shuffle_window=None)
    here = sharded(made)
    assert there.split_fingerprints() == here.split_fingerprints()
    for one, two in zip(there.train_dataloader(), here.train_dataloader(), strict=True):
        assert all(map(torch.equal, tensors(one), tensors(two)))


@pytest.mark.parametrize("workers", [0, 2])
def test_each_shard_of_a_server_is_fetched_once(server, made, workers):
    for _ in range(2):
        data = sharded(server.url, num_workers=workers)
        here = sharded(made, shuffle_window=REMOTE_WINDOW)
        loaded = read(data.train_dataloader())
        for one, two in zip(loaded, here.train_dataloader(), strict=True):
            assert all(map(torch.equal, tensors(one), tensors(two)))
    fetched = [name for name in server.fetched if name != "index.json"]
    assert len(fetched) == len(set(fetched))
    trained = {name for name in fetched if name.startswith("train-")}
    assert len(trained) == len(data.splits["train"].source.shards)
    assert not [name for name in fetched if name.startswith("val-")]


def test_a_server_is_asked_for_shards_as_they_come(server):
    batches = iter(sharded(server.url, shuffle_window=2, batch_size=2).train_dataloader())
    next(batches)
    shards = [name for name in server.fetched if name.startswith("train-")]
    assert 1 <= len(shards) <= 2


def test_shards_made_anew_are_not_mixed_with_those_kept(server, photos, shards, tmp_path):
    first = sharded(server.url).dataset("val")[0].images
    make_shards(photos, tmp_path / "other", SMALL_SHARDS, "max_size=20")
    shutil.rmtree(shards)
    shutil.copytree(tmp_path / "other", shards)
    assert not torch.equal(sharded(server.url).dataset("val")[0].images, first)


def test_what_comes_is_compared_with_the_index(server, shards):
    path = shards / "val-000000.tar"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(FoveaError, match=r"val-000000\.tar could not be fetched"):
        list(sharded(server.url).val_dataloader())
    assert server.fetched.count("val-000000.tar") == shard_folder.ATTEMPTS
    path.unlink()
    with pytest.raises(FoveaError, match="not there"):
        list(sharded(server.url, num_workers=2, on_bad_image="skip").val_dataloader())
    path.write_bytes(content)
    assert sum(len(batch.labels) for batch in sharded(server.url).val_dataloader()) == 24


def test_a_disk_without_room_is_told_at_the_start(made, cache, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000)
    )
    message = error_of(f"file://{made}")
    assert str(cache) in message
    assert "data.cache_dir=" in message


def test_the_cache_can_be_chosen(made, tmp_path):
    data = sharded(f"file://{made}", cache_dir=str(tmp_path / "here"))
    list(data.val_dataloader())
    assert list((tmp_path / "here").rglob("val-*.tar"))
    (tmp_path / "file").write_text("")
    assert "data.cache_dir=" in error_of(f"file://{made}", cache_dir=str(tmp_path / "file"))


def test_without_a_cache_a_folder_is_asked_for(made, monkeypatch):
    monkeypatch.setenv("FOVEA_CACHE", "")
    assert "data.cache_dir=" in error_of(f"file://{made}")
    assert sharded(made).split_sizes == {"train": 41, "val": 18}


@pytest.mark.parametrize(
    ("url", "said"),
    [("nowhere://x/y", "nowhere"), ("file:///no/such/folder", "index.json")],
)
def test_urls_that_lead_nowhere(url, said):
    message = error_of(url)
    assert said in message
    assert url in message


def test_a_protocol_whose_package_is_missing(monkeypatch):
    import fsspec

    def absent(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    assert "pip install s3fs" in error_of("s3://bucket/photos")
