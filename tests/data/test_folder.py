import logging
import random
import re
import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from fovea.data import FolderDataModule, decode_image
from fovea.data.layout import natural_key
from fovea.errors import FoveaError


def make(root, *paths, size=(12, 10)):
    """An image of its own at each path below ``root``."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(zlib.crc32(path.encode())).integers(0, 256, (*size, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return root


def tree(root, counts, classes=("cat", "dog")):
    return make(
        root, *(f"{s}/{c}/{i}.png" for s, n in counts.items() for c in classes for i in range(n))
    )


def flat(root, count=20, classes=("cat", "dog")):
    return make(root, *(f"{c}/{i}.png" for c in classes for i in range(count)))


def folder(root, **options):
    return FolderDataModule(str(root), **{"batch_size": 4, "num_workers": 0, **options})


def error_of(root, **options):
    with pytest.raises(FoveaError) as caught:
        folder(root, **options).prepare()
    return str(caught.value)


def relative_paths(data, split):
    dataset = data.dataset(split)
    return [dataset.path(i).removeprefix(f"{data.root}/") for i in range(len(dataset))]


def test_a_divided_tree_is_read_as_torchvision_reads_it(tmp_path):
    tree(tmp_path, {"train": 5, "val": 2, "test": 3})
    data = folder(tmp_path)
    assert data.split_sizes == {"train": 10, "val": 4, "test": 6}
    for split in ("train", "val", "test"):
        reference = ImageFolder(tmp_path / split)
        dataset = data.dataset(split)
        assert data.class_names == reference.classes
        assert [(dataset.path(i), int(dataset.labels[i])) for i in range(len(dataset))] == [
            (path, label) for path, label in reference.samples
        ]
        assert (dataset[0].images).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("name", "split"),
    [("valid", "val"), ("validation", "val"), ("Train", "train"), ("testing", "test")],
)
def test_other_names_of_splits(tmp_path, name, split):
    tree(tmp_path, {"train": 5, "val": 2, "test": 2})
    (tmp_path / split).rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / name)
    assert folder(tmp_path).split_sizes == {"train": 10, "val": 4, "test": 4}


def test_two_folders_of_one_split_are_refused(tmp_path):
    tree(tmp_path, {"train": 2, "val": 2, "validation": 2})
    assert "val/ and validation/" in error_of(tmp_path)


def test_val_is_cut_from_train_where_there_is_none(tmp_path):
    tree(tmp_path, {"train": 10, "test": 3})
    data = folder(tmp_path, val_fraction=0.2)
    assert data.split_sizes == {"train": 16, "val": 4, "test": 6}
    assert data.class_counts("val") == [2, 2]
    train, val = (set(relative_paths(data, split)) for split in ("train", "val"))
    assert not train & val
    assert all(path.startswith("train/") for path in train | val)


def test_a_divided_tree_without_test_says_what_to_use(tmp_path):
    data = folder(tree(tmp_path, {"train": 4, "val": 2}))
    with pytest.raises(FoveaError, match="split=val"):
        data.test_dataloader()


def test_a_flat_tree_is_split_the_same_way_wherever_it_lies(tmp_path):
    flat(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = folder(tmp_path / "here"), folder(tmp_path / "there")
    assert here.split_sizes == {"train": 32, "val": 4, "test": 4}
    assert here.class_counts("test") == [2, 2]
    for split in ("train", "val", "test"):
        assert relative_paths(here, split) == relative_paths(there, split)
        one, two = here.splits_recorded[split], there.splits_recorded[split]
        assert one["fingerprint"] == two["fingerprint"]
    everything = [path for split in here.splits for path in relative_paths(here, split)]
    assert len(set(everything)) == len(everything) == 40


def test_one_file_more_leaves_the_others_in_their_splits(tmp_path):
    flat(tmp_path)
    before = {split: set(relative_paths(folder(tmp_path), split)) for split in ("train", "test")}
    for i in range(5):
        added = make(tmp_path, f"cat/{i}a.png") / "cat" / f"{i}a.png"
        data = folder(tmp_path)
        assert data.split_sizes == {"train": 33, "val": 4, "test": 4}
        after = {split: set(relative_paths(data, split)) for split in ("train", "test")}
        assert not before["train"] & after["test"]
        assert len(before["train"] - after["train"]) <= 1
        assert len(before["test"] - after["test"]) <= 1
        added.unlink()


def test_one_image_a_class_can_be_split(tmp_path, caplog):
    data = folder(make(tmp_path, *(f"class{i}/only.png" for i in range(20))))
    assert data.split_sizes == {"train": 16, "val": 2, "test": 2}
    assert data.num_classes == 20
    assert "4 of 20 classes have no training image" in caplog.text


def test_classes_named_by_numbers_are_in_numeric_order(tmp_path):
    flat(tmp_path, count=5, classes=[str(i) for i in range(12)])
    data = folder(tmp_path)
    assert data.class_names == [str(i) for i in range(12)]
    dataset = data.dataset("train")
    for i in range(len(dataset)):
        assert dataset.path(i).split("/")[-2] == str(int(dataset.labels[i]))


def test_classes_are_in_natural_order(tmp_path):
    flat(tmp_path, count=5, classes=["b10", "b9", "a", "B1", "b9x"])
    assert folder(tmp_path).class_names == ["B1", "a", "b9", "b9x", "b10"]


def parts(name):
    """A name's numbers and texts: numbers stand before texts, and the name itself decides last."""
    found = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in found], name


def test_natural_order_is_that_of_the_parts():
    draw = random.Random(0)
    letters = "ab019.-_ Zé\udcff"
    names = {"".join(draw.choices(letters, k=draw.randint(1, 6))) for _ in range(20_000)}
    names |= {"n01440764_10026.JPEG", "n01440764_986.JPEG", "0" * 99, "1" * 250}
    assert sorted(names, key=natural_key) == sorted(names, key=parts)


def test_val_with_other_classes_lists_the_differences(tmp_path):
    tree(tmp_path, {"train": 3, "val": 2})
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "wolf")
    message = error_of(tmp_path)
    assert f"missing from {tmp_path}/val: dog" in message
    assert f"not in {tmp_path}/train: wolf" in message


def test_a_flat_val_folder_is_explained(tmp_path):
    tree(tmp_path, {"train": 3})
    make(tmp_path, "val/1.png", "val/2.png")
    message = error_of(tmp_path)
    assert "val has no class folders" in message
    assert "1.png" in message
    assert "scripts/prepare_imagenet.py" in message


def test_an_empty_class_folder_is_refused_in_train_and_named_in_val(tmp_path, caplog):
    tree(tmp_path, {"train": 3, "val": 2})
    shutil.rmtree(tmp_path / "val" / "dog")
    (tmp_path / "val" / "dog").mkdir()
    folder(tmp_path).prepare()
    assert "no images of class(es) dog" in caplog.text
    (tmp_path / "train" / "emu").mkdir()
    (tmp_path / "val" / "emu").mkdir()
    assert "emu" in error_of(tmp_path)


def test_nested_folders_belong_to_their_class(tmp_path, caplog):
    make(tmp_path, *(f"cat/{g}/deep/{i}.png" for g in ("a", "b") for i in range(5)))
    make(tmp_path, *(f"dog/{i}.png" for i in range(10)))
    data = folder(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert data.class_counts("train") == [8, 8]
    assert "cat has only folders in it (a, b)" in caplog.text


def test_unlabelled_images_and_other_files_are_named_and_left_out(tmp_path, caplog):
    flat(tmp_path)
    make(tmp_path, "stray.png")
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    (tmp_path / "cat" / ".DS_Store").write_text("")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    data = folder(tmp_path)
    data.prepare()
    assert "stray.png" in caplog.text
    assert "notes.txt" in caplog.text
    assert "DS_Store" not in caplog.text
    assert data.num_classes == 2
    assert sum(data.split_sizes.values()) == 40


def test_folders_beside_the_splits_are_named(tmp_path, caplog):
    tree(tmp_path, {"train": 5, "val": 2, "extra": 2})
    folder(tmp_path).prepare()
    assert "extra" in caplog.text


def test_missing_and_misplaced_roots_are_explained(tmp_path):
    assert f"No folder {tmp_path}/nowhere" in error_of(tmp_path / "nowhere")
    assert "data.root=" in error_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds nothing" in error_of(tmp_path / "empty")
    make(tmp_path, "files/a.png")
    assert "holds only files (a.png)" in error_of(tmp_path / "files")
    tree(tmp_path / "up" / "down", {"train": 2, "val": 2})
    assert f"data.root={tmp_path}/up/down" in error_of(tmp_path / "up")


def test_classes_can_be_numbered_as_a_checkpoint_does(tmp_path):
    data = folder(flat(tmp_path, classes=["cat", "dog", "emu"]))
    data.use_class_order(["emu", "ape", "dog", "cat"])
    assert data.class_names == ["emu", "ape", "dog", "cat"]
    assert data.class_counts("val") == [2, 0, 2, 2]
    dataset = data.dataset("train")
    for i in range(len(dataset)):
        assert dataset.path(i).split("/")[-2] == data.class_names[int(dataset[i].labels)]
    with pytest.raises(FoveaError, match=r"has others: emu, ape"):
        data.use_class_order(["cat", "dog"])


def test_a_test_split_alone_can_be_evaluated(tmp_path):
    data = folder(tree(tmp_path, {"test": 3}))
    assert data.split_sizes == {"test": 6}
    assert len(data.describe()) > 3
    for split, words in {"train": "To train, add", "val": "split=test"}.items():
        with pytest.raises(FoveaError, match=words):
            data.dataset(split)
    with pytest.raises(FoveaError, match="no train/"):
        data.check_batch()


def test_evaluation_pixels(tmp_path):
    """Files through the loader are the files as decoded, resized and cropped by torchvision."""
    from torchvision.transforms import v2

    make(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(5)), size=(130, 170))
    data = folder(tmp_path, image_size=96)
    dataset = data.dataset("train")
    for batch in data.dataloader("train"):
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            if index < 0:
                continue
            decoded = decode_image(dataset.path(index))
            resized = v2.Resize(110, antialias=True)(decoded)
            assert torch.equal(image, v2.CenterCrop(96)(resized))


def test_default_sizes(tmp_path):
    flat(tmp_path)
    assert folder(tmp_path).preprocessing.resize == 256
    assert folder(tmp_path, image_size=32).preprocessing.resize == 32


# Tables.


def table(root, text, name="labels.csv"):
    (root / name).write_text(text)
    return root / name


@pytest.fixture
def images(tmp_path):
    return make(tmp_path, *(f"img/{i}.png" for i in range(20)))


def rows(*splits):
    lines = []
    for i in range(20):
        row = [f"img/{i}.png", ("zebra", "ant")[i % 2]]
        lines.append(row + ([splits[i % len(splits)]] if splits else []))
    return lines


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t"), ("b.csv", "\t")])
def test_a_table_is_split_like_a_flat_tree(images, name, separator):
    text = "\n".join(separator.join(row) for row in [["path", "label"], *rows()])
    data = folder(table(images, text, name))
    assert data.split_sizes == {"train": 16, "val": 2, "test": 2}
    assert data.class_names == ["ant", "zebra"]
    dataset = data.dataset("train")
    for i in range(len(dataset)):
        number = int(dataset.path(i).split("/")[-1].removesuffix(".png"))
        assert data.class_names[int(dataset.labels[i])] == ("zebra", "ant")[number % 2]


def test_a_table_with_splits(images):
    splits = ["train"] * 6 + ["valid", "val", "test", "test"]
    text = "\n".join(",".join(row) for row in [["path", "label", "split"], *rows(*splits)])
    data = folder(table(images, "\ufeff" + text))  # as spreadsheets write it
    assert data.split_sizes == {"train": 12, "val": 4, "test": 4}


def test_quoted_labels_and_numeric_classes(images):
    lines = [f'img/{i}.png,"{i % 11}"' for i in range(20)]
    data = folder(table(images, "path,label\n" + "\n".join(lines)))
    assert data.class_names == [str(i) for i in range(11)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,class\nimg/0.png,a", r"begins with 'file,class'"),
        ("path,label\nimg/0.png,a\nimg/99.png,b", r"line 3: img/99.png"),
        ("path,label\nimg/0.png,a\nimg/1.png,", r"line 3: no label"),
        ("path,label\n,a", r"line 2: no path"),
        ("path,label,split\nimg/0.png,a,dev", r"line 2: split 'dev'"),
        ("path,label,split\nimg/0.png,a,train\nimg/1.png,b,val", r"class\(es\) b occur"),
        ("path,label,split\nimg/0.png,a,val", r"no rows with split train"),
        ("path,label\n", r"lists no images"),
    ],
)
def test_mistakes_in_tables_name_the_line(images, text, words):
    with pytest.raises(FoveaError, match=words):
        folder(table(images, text)).prepare()


def test_a_missing_table_is_named(tmp_path):
    assert "No table" in error_of(tmp_path / "gone.csv")


@pytest.fixture(autouse=True)
def _warnings(caplog):
    caplog.set_level(logging.WARNING)
