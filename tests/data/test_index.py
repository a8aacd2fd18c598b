import json
import logging
import multiprocessing
import os
import shutil
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fovea.data import FolderDataModule, index
from fovea.data.layout import Walk
from fovea.data.sources import FileSource

KEPT = 10


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, caplog):
    """Indexes of small folders are kept, in a folder of the test's own."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "SMALLEST_KEPT", KEPT)
    monkeypatch.setattr(index, "SETTLED", 0.02)
    return tmp_path / "cache"


def make(root, *paths):
    """An empty file at each path; folders are settled afterwards."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    settle()
    return root


def settle():
    time.sleep(0.05)  # file systems count time in steps of some milliseconds


@pytest.fixture
def tree(tmp_path):
    """A divided tree: 24 train images, some in deeper folders, and 20 val images."""
    cats = [f"train/cat/{g}/{i}.png" for g in ("a", "b") for i in range(8)]
    dogs = [f"train/dog/{i}.png" for i in range(8)]
    val = [f"val/{c}/{i}.png" for c in ("cat", "dog") for i in range(10)]
    return make(tmp_path / "images", *cats, *dogs, *val)


def content(root):
    """Split -> (path, class) of each image, as the data module finds them."""
    data = FolderDataModule(str(root), num_workers=0)
    found = {}
    for name in data.splits:
        dataset = data.dataset(name)
        classes = [data.class_names[label] for label in dataset.labels]
        found[name] = [(dataset.path(i), classes[i]) for i in range(len(dataset))]
    return found


def on_disk(root):
    """The same, found by pathlib; for names that sort as plain text."""
    return {
        split: [
            (str(file), file.relative_to(root / split).parts[0])
            for file in sorted((root / split).glob("**/*.png"))
        ]
        for split in ("train", "val")
    }


@pytest.fixture
def no_walk(monkeypatch):
    """After a call nothing can be listed any more: what is found comes from a kept index."""

    def fail(folder):
        raise AssertionError(f"{folder} is listed")

    return lambda: monkeypatch.setattr(index, "walk_images", fail)


def test_a_folder_is_listed_once(tree, cache, no_walk):
    first = content(tree)
    assert first == on_disk(tree)
    assert len(list(cache.iterdir())) == 2
    no_walk()
    assert content(tree) == first


def test_warnings_come_at_every_start(tree, caplog, no_walk):
    make(tree, "train/dog/notes.txt", "train/stray.png")
    warned = []
    for start in range(2):
        caplog.clear()
        content(tree)
        warned.append([r.getMessage() for r in caplog.records if r.levelname == "WARNING"])
        if start == 0:
            no_walk()
    assert warned[0] == warned[1]
    for words in ("left out: notes.txt", "left out: stray.png", "only folders in it (a, b)"):
        assert any(words in message for message in warned[1])


def replace_by_a_twin(root):
    """Another folder takes its place, with the same times of its own: as rsync -t leaves it."""
    shutil.copytree(root / "train/dog", root / "twin")
    (root / "twin/0.png").rename(root / "twin/9.png")
    times = (root / "train/dog").stat()
    os.utime(root / "twin", ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(root / "train/dog")
    (root / "twin").rename(root / "train/dog")


def add_and_set_the_time_back(root):
    times = (root / "train/dog").stat()
    (root / "train/dog/new.png").touch()
    os.utime(root / "train/dog", ns=(times.st_atime_ns, times.st_mtime_ns))


def swap(root):
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (root / "train" / old).rename(root / "train" / new)


def new_class(root):
    for split in ("train", "val"):
        make(root, f"{split}/emu/0.png")


CHANGES = {
    "added": lambda root: (root / "train/dog/new.png").touch(),
    "removed": lambda root: (root / "train/dog/3.png").unlink(),
    "renamed": lambda root: (root / "train/dog/3.png").rename(root / "train/dog/x.png"),
    "added deep below": lambda root: (root / "train/cat/b/new.png").touch(),
    "moved deep below": lambda root: (root / "train/cat/a").rename(root / "train/cat/c"),
    "new folder deep below": lambda root: make(root, "train/cat/c/d/0.png"),
    "classes swapped": swap,
    "new class": new_class,
    "class gone": lambda root: [shutil.rmtree(root / s / "dog") for s in ("train", "val")],
    "folder replaced": replace_by_a_twin,
    "added unseen by the time": add_and_set_the_time_back,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_noticed_and_told_once(tree, caplog, no_walk, change):
    before = content(tree)
    assert "has changed" not in caplog.text
    change(tree)
    settle()
    after = content(tree)
    assert after == on_disk(tree) != before
    assert f"{tree}/train has changed since it was listed" in caplog.text
    caplog.clear()
    no_walk()
    assert content(tree) == after
    assert "has changed" not in caplog.text


def test_a_link_to_another_folder_is_noticed(tmp_path):
    for version in ("one", "two"):
        make(tmp_path / version, *(f"dog/{version}{i}.png" for i in range(8)))
    root = make(tmp_path / "images", *(f"cat/{i}.png" for i in range(8)))
    for version in ("one", "two"):
        (root / "dog").unlink(missing_ok=True)
        (root / "dog").symlink_to(tmp_path / version / "dog")
        settle()
        paths = [path for split in content(root).values() for path, _ in split]
        assert sum(f"dog/{version}" in path for path in paths) == 8
        assert len(paths) == 16


def test_a_folder_that_shrinks_is_told_once(tree, cache, caplog):
    content(tree)
    for number in range(8):
        (tree / f"train/cat/a/{number}.png").unlink()
        (tree / f"train/cat/b/{number}.png").rename(tree / f"train/cat/{number}.png")
    for file in tree.glob("val/*/[0-7].png"):
        file.unlink()
    settle()
    assert content(tree) == on_disk(tree)
    assert len(list(cache.iterdir())) == 1  # val has become too small
    caplog.clear()
    assert content(tree) == on_disk(tree)
    assert "has changed" not in caplog.text


def test_small_folders_leave_nothing_behind(tmp_path, cache):
    root = make(tmp_path / "images", *(f"{c}/{i}.png" for c in "ab" for i in range(KEPT // 2 - 1)))
    content(root)
    assert not cache.exists()
    make(root, "a/x.png", "b/x.png")
    content(root)
    assert len(list(cache.iterdir())) == 1


def test_what_changed_just_now_is_not_kept(tree, cache, monkeypatch):
    monkeypatch.setattr(index, "SETTLED", 2.0)
    (tree / "train/cat/b/new.png").touch()
    assert content(tree) == on_disk(tree)
    assert not cache.exists()


def test_class_folders_of_another_choice(tree):
    both = index.list_images(tree, "train/", ["cat", "dog"])
    one = index.list_images(tree, "train/", ["dog"])
    assert both.paths.tolist()[16:] == one.paths.tolist()
    assert [found.images for found in both.classes] == [16, 8]
    assert [found.name for found in one.classes] == ["dog"]


def test_names_that_are_no_text(tmp_path, no_walk):
    names = [b"a\xff.png", "é.png".encode(), "日本.png".encode(), b"with\nline.png"]
    root = make(tmp_path / "images", *(f"cat/{i}.png" for i in range(KEPT)), "dog/0.png")
    for name in names:
        Path(os.fsdecode(os.fsencode(root / "cat/") + b"/" + name)).touch()
    settle()
    first = content(root)
    paths = {os.fsencode(path) for split in first.values() for path, _ in split}
    assert {os.fsencode(root) + b"/cat/" + name for name in names} < paths
    no_walk()
    assert content(root) == first


# Caches that cannot be used.


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-200])


def bit_flipped(file):
    content = bytearray(file.read_bytes())
    content[content.rindex(b"dog/3.png")] ^= 1
    file.write_bytes(content)


def one_array(file):
    with file.open("wb") as stream:
        np.save(stream, np.arange(3))


def rewritten(**arrays):
    def rewrite(file):
        with np.load(file) as old:
            arrays_now = {**old, **arrays}
        with file.open("wb") as stream:
            np.savez(stream, **{k: v for k, v in arrays_now.items() if v is not None})

    return rewrite


def header(**values):
    text = json.dumps({"format": index.FORMAT, "classes": [], "stamps": {}, **values})
    return np.frombuffer(text.encode(), dtype=np.uint8)


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "no archive": lambda file: file.write_bytes(b"garbage"),
    "cut off": cut_off,
    "a bit flipped": bit_flipped,
    "one array": one_array,
    "no header": rewritten(header=None),
    "no paths": rewritten(paths=None),
    "objects": rewritten(header=np.array([{}], dtype=object)),
    "header no JSON": rewritten(header=np.zeros(3, dtype=np.uint8)),
    "header a list": rewritten(header=np.frombuffer(b"[1, 2]", dtype=np.uint8)),
    "of another format": rewritten(header=header(format=0)),
    "of other classes": rewritten(header=header()),
    "odd classes": rewritten(header=header(classes=[["cat"], 3])),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_index_is_made_anew(tree, cache, no_walk, damage):
    first = content(tree)
    for file in cache.iterdir():
        if len(np.load(file)["paths"]) == 24:
            damage(file)
    assert content(tree) == first
    no_walk()
    assert content(tree) == first


def test_without_a_cache_it_goes_on(tree, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        monkeypatch.setenv("FOVEA_CACHE", str(place))
        assert content(tree) == on_disk(tree)
    assert "the index is not kept" in caplog.text
    assert (tmp_path / "file").read_bytes() == b""


def test_a_full_disk_leaves_no_half_index(tree, cache, monkeypatch):
    def fail(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    assert content(tree) == on_disk(tree)
    assert not list(cache.iterdir())


def test_where_indexes_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert index.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FOVEA_CACHE")
    assert index.cache_folder() == Path("/xdg/fovea")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert index.cache_folder() == Path("/home/somebody/.cache/fovea")
    monkeypatch.setenv("FOVEA_CACHE", "")
    assert index.cache_folder() is None


def test_a_user_without_a_home(tree, monkeypatch):
    monkeypatch.delenv("FOVEA_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where there is none
    assert index.cache_folder() is None
    assert content(tree) == on_disk(tree)


def _list_often(root, expected, failures):
    for _ in range(15):
        found = index.list_images(root, "train/", ["cat", "dog"]).paths.tolist()
        if found != expected:
            failures.put(found)
        for file in index.cache_folder().glob("*.npz"):  # so that each writes often
            file.unlink(missing_ok=True)


def test_processes_at_the_same_time(tree, cache):
    expected = index.list_images(tree, "train/", ["cat", "dog"]).paths.tolist()
    fork = multiprocessing.get_context("fork")
    failures = fork.SimpleQueue()
    processes = [
        fork.Process(target=_list_often, args=(tree, expected, failures)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert failures.empty()
    assert not list(cache.glob("*.part"))


# ImageNet's size, without the files.

CLASSES, EACH = 1000, 1281


@pytest.fixture
def made_up(tmp_path, monkeypatch, no_walk):
    """The index of 1,281,000 files that do not exist, read from where it was kept."""

    def walk(folder):
        images = [f"{folder.name}_{number}.JPEG" for number in range(EACH)]
        return Walk(images, [], {"": [1, 2, 3]})

    monkeypatch.setattr(index, "walk_images", walk)
    monkeypatch.setattr(index, "folder_stamp", lambda folder: [1, 2, 3])
    classes = [f"n{number:08}" for number in range(CLASSES)]
    index.list_images(tmp_path, "train/", classes)
    no_walk()
    return index.list_images(tmp_path, "train/", classes)


def test_a_million_names_are_one_array(made_up):
    paths = made_up.paths
    assert len(paths) == CLASSES * EACH
    assert [found.images for found in made_up.classes] == [EACH] * CLASSES
    for place in np.random.default_rng(0).integers(0, len(paths), 1000):
        label, number = divmod(int(place), EACH)
        assert paths[place] == f"train/n{label:08}/n{label:08}_{number}.JPEG".encode()
    assert paths.nbytes < 50e6
    tracemalloc.start()
    source = FileSource(Path("/images"), paths)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert allocated < 1e5  # no strings, no copy
    assert source.path(5 * EACH + 7) == "/images/train/n00000005/n00000005_7.JPEG"


def _private_memory():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _read_paths(source, grown):
    before = _private_memory()
    for number in np.random.default_rng(0).integers(0, len(source), 200_000).tolist():
        source.path(number)
    grown.put(_private_memory() - before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_copies_no_page_of_a_million_names(made_up):
    fork = multiprocessing.get_context("fork")
    grown = fork.SimpleQueue()
    worker = fork.Process(target=_read_paths, args=(FileSource(Path("/i"), made_up.paths), grown))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert grown.get() < 10  # MB; a list of strings would cost some 100
