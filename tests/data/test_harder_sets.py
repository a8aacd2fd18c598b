"""Harder test sets, in the layout that each is distributed in."""

import gc
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fovea.comparison import compare
from fovea.data import (
    CIFARCDataModule,
    CIFARDataModule,
    DigitsDataModule,
    FolderDataModule,
    ImageNetCDataModule,
    ImageNetDataModule,
    ImageNetTestDataModule,
    imagenet_classes,
    read_real_labels,
    real_labels_of,
)
from fovea.data.corruptions import Corruption
from fovea.data.imagenet_tests import test_set_folders as folders_of
from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from photo import photo

WNIDS = list(imagenet_classes())


def save(path, seed=0, side=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(side, side, seed).save(path, "JPEG")


def make_set(root, variant, **options):
    options = {"batch_size": 2, "num_workers": 0, "classes": "some", **options}
    return ImageNetTestDataModule(str(root), variant=variant, **options)


def test_errors_are_divided_by_alexnets_for_images_as_imagenet_cs_alone(tmp_path, monkeypatch):
    save(tmp_path / "sketch" / WNIDS[3] / "x.JPEG")
    assert "not ImageNet's" in make_set(tmp_path / "sketch", "sketch").unlike_imagenet_c("test")
    for wnid in (WNIDS[3], WNIDS[700]):
        for split in ("train", "val"):
            for k in range(4):
                save(tmp_path / "in" / split / wnid / f"ILSVRC2012_val_0000000{k}.JPEG")
        save(tmp_path / "c" / "fog" / "1" / wnid / "x.JPEG", side=224)
    two = {wnid: imagenet_classes()[wnid] for wnid in (WNIDS[3], WNIDS[700])}
    for name in ("imagenet", "imagenet_c"):  # as if the two were all there are
        monkeypatch.setattr(f"fovea.data.{name}.imagenet_classes", lambda: two)

    def why(split, **options):
        return ImageNetDataModule(str(tmp_path / "in"), **options).unlike_imagenet_c(split)

    assert why("val") == why("val", image_size=256) == why("test", official_val="test") == ""
    assert "not all" in why("train")
    assert "not all" in why("val", classes="some")
    assert "not all" in why("val", official_val="test")  # cut from train
    assert "at 64 pixels" in why("val", image_size=64)
    assert make_c(tmp_path / "c", classes="all").unlike_imagenet_c("test") == ""
    assert "not all" in make_c(tmp_path / "c").unlike_imagenet_c("test")


def error_of(data):
    with pytest.raises(FoveaError) as caught:
        data.prepare()
    return str(caught.value)


def test_v2_folders_are_class_numbers(tmp_path):
    inner = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in (0, 2, 10, 100, 999):
        save(inner / str(number) / "a1b2.jpeg")
    data = make_set(tmp_path, "v2")
    assert data.num_classes == 1000
    dataset = data.dataset("test")
    by_folder = {dataset.path(i).split("/")[-2]: dataset.labels[i].item() for i in range(5)}
    assert by_folder == {str(n): n for n in (0, 2, 10, 100, 999)}
    assert data.class_names[10] == imagenet_classes()[WNIDS[10]] == "brambling"


def test_a_and_r_have_200_classes_of_their_own(tmp_path):
    a, r = (folders_of(variant) for variant in ("a", "r"))
    assert len(a) == len(r) == 200
    assert list(a) == sorted(a)
    assert set(a) | set(r) <= set(WNIDS)
    # Facts of the two papers' lists: in A a goldfinch and no tench, in R a goldfish.
    assert ("n01531178" in a, "n01440764" in a, "n01443537" in r) == (True, False, True)
    some = [list(a)[k] for k in (0, 7, 199)]
    for wnid in some:
        save(tmp_path / "imagenet-a" / wnid / "0.1_x_0.9.jpg")
    (tmp_path / "imagenet-a" / "README.txt").write_text("n01498041 stingray")
    data = make_set(tmp_path, "a")
    assert data.class_names == [imagenet_classes()[wnid] for wnid in a]
    assert data.dataset("test").labels.tolist() == [0, 7, 199]
    # As a network of 1000 classes numbers them.
    data.use_class_order(list(imagenet_classes().values()))
    assert data.dataset("test").labels.tolist() == [WNIDS.index(wnid) for wnid in some]


def test_sketch_has_all_classes(tmp_path):
    for k in (3, 700):
        save(tmp_path / WNIDS[k] / f"sketch_{k}.JPEG")
    data = make_set(tmp_path, "sketch")
    assert data.dataset("test").labels.tolist() == [3, 700]
    assert data.preprocessing.resize == 256


def test_what_is_missing_or_strange_is_said(tmp_path):
    assert "github.com/modestyachts/ImageNetV2" in error_of(make_set(tmp_path / "none", "v2"))
    save(tmp_path / "v2" / "1" / "x.jpeg")
    assert "lacks 999 of the 1000" in error_of(make_set(tmp_path / "v2", "v2", classes="all"))
    save(tmp_path / "v2" / "1000" / "x.jpeg")
    assert "no class of ImageNet-V2: 1000" in error_of(make_set(tmp_path / "v2", "v2"))
    save(tmp_path / "a" / "n01440764" / "x.jpg")  # a class of ImageNet, but not of A
    save(tmp_path / "a" / "n01498041" / "x.jpg")
    assert "no class of ImageNet-A: n01440764" in error_of(make_set(tmp_path / "a", "a"))
    for inner in ("one", "two"):
        save(tmp_path / "both" / inner / "1" / "x.jpeg")
    assert "say which: data.root=" in error_of(make_set(tmp_path / "both", "v2"))
    with pytest.raises(FoveaError, match="Did you mean 'sketch'"):
        make_set(tmp_path, "scetch")
    good = make_set(tmp_path / "v2", "r")
    with pytest.raises(FoveaError, match="none is a class of ImageNet-R: 1, 1000"):
        good.prepare()


def test_a_test_set_has_nothing_to_train_on(tmp_path):
    save(tmp_path / WNIDS[5] / "x.JPEG")
    with pytest.raises(FoveaError, match="is a test set"):
        make_set(tmp_path, "sketch").dataset("val")


@pytest.fixture
def imagenet_c(tmp_path):
    """Two classes, in two corruptions: one beside its group's folder, one in it."""
    for place, name, severity in (
        ("", "fog", 1), ("", "fog", 2), ("noise/", "gaussian_noise", 3)
    ):  # fmt: skip
        for k in (2, 10):
            file = tmp_path / f"{place}{name}" / str(severity) / WNIDS[k]
            save(file / "ILSVRC2012_val_00000001.JPEG", seed=severity, side=224)
    return tmp_path


def make_c(root, **options):
    options = {"num_workers": 0, "classes": "some", "crop_ratio": 1.0, **options}
    return ImageNetCDataModule(root=str(root), **options)


def test_imagenet_c_as_distributed(imagenet_c):
    data = make_c(imagenet_c, batch_size=2)
    data.prepare()
    assert data.versions() == [
        Corruption("gaussian_noise", 3), Corruption("fog", 1), Corruption("fog", 2)
    ]  # fmt: skip
    assert data.dataset("test").path(0).endswith(f"noise/gaussian_noise/3/{WNIDS[2]}/"
                                                 "ILSVRC2012_val_00000001.JPEG")  # fmt: skip
    prints = {v: make_c(imagenet_c, corruption=v.name, severity=v.severity).split_fingerprints()
              for v in data.versions()}  # fmt: skip
    assert len({print_["test"] for print_ in prints.values()}) == 3
    data.use_class_order(["strange", *reversed(imagenet_classes().values())])
    with data.corrupting(Corruption("fog", 2)):
        shown = data.dataset("test")
        assert "/fog/2/" in shown.path(1)
        assert shown.labels.tolist() == [1000 - 2, 1000 - 10]
        # 224 pixels are seen as they are stored.
        stored = np.array(Image.open(shown.path(0)))
        assert np.array_equal(shown[0].images.permute(1, 2, 0).numpy(), stored)
    assert "/gaussian_noise/3/" in data.dataset("test").path(1)
    with pytest.raises(FoveaError, match=r"has no snow, severity 1. There are gaussian_noise/3"):
        make_c(imagenet_c, corruption="snow", severity=1).prepare()
    assert "zenodo.org/record/2235448" in error_of(make_c(imagenet_c / "none"))
    assert "lacks 998" in error_of(make_c(imagenet_c, classes="all"))
    with pytest.raises(FoveaError, match="belong together"):
        make_c(imagenet_c, corruption="fog")


def test_versions_are_not_compared_with_each_other(imagenet_c, tmp_path):
    files = []
    for severity in (1, 2):
        data = make_c(imagenet_c, corruption="fog", severity=severity)
        labels = data.dataset("test").labels
        about = {"split": "test", "fingerprint": data.split_fingerprints()["test"]}
        found = Predictions(torch.arange(2), labels, torch.randn(2, 1000), about=about)
        files.append(tmp_path / f"{severity}.npz")
        found.save(files[-1])
    with pytest.raises(FoveaError, match="not of the same images"):
        compare(files)


@pytest.fixture
def cifar_c(tmp_path):
    random = np.random.default_rng(0)
    labels = np.array([0, 3, 9, 9])
    np.save(tmp_path / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    for name in ("fog", "contrast"):
        images = random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        images[:, 0, 0] = np.arange(20)[:, None]
        np.save(tmp_path / f"{name}.npy", images)
    return tmp_path


def test_cifar_c_as_distributed(cifar_c):
    data = CIFARCDataModule(str(cifar_c), corruption="contrast", severity=2, batch_size=4)
    dataset = data.dataset("test")
    assert [dataset[i].images[0, 0, 0].item() for i in range(4)] == [4, 5, 6, 7]
    assert dataset.labels.tolist() == [0, 3, 9, 9]
    assert data.class_names[3] == "cat"
    stored = np.load(cifar_c / "contrast.npy")[6]
    assert np.array_equal(dataset[2].images.permute(1, 2, 0).numpy(), stored)
    # Held in memory or not, each version is shown.
    for severity in (1, 5):
        with data.corrupting(Corruption("fog", severity)):
            first = next(iter(data.test_dataloader())).images[:, 0, 0, 0].tolist()
        assert first == list(range(4 * severity - 4, 4 * severity))
    assert data.version == Corruption("contrast", 2)


def test_cifar_classes_are_those_of_the_files(tmp_path, cifar_c):
    for k, name in ((10, "airplane"), (100, "worm")):
        data = CIFARCDataModule(str(cifar_c), num_classes=k)
        assert len(set(data.class_names)) == k
        assert data.class_names == sorted(data.class_names)
        assert name in data.class_names
    for name in CIFARCDataModule(str(cifar_c)).class_names:
        for split in ("train", "test"):
            save(tmp_path / "files" / split / name / "0.jpg", side=32)
    plain = CIFARDataModule(str(tmp_path / "files"), batch_size=2)
    assert plain.class_names == CIFARCDataModule(str(cifar_c)).class_names


def test_damaged_cifar_c(cifar_c):
    assert "zenodo.org/record/2535967" in error_of(CIFARCDataModule(str(cifar_c / "none")))
    np.save(cifar_c / "fog.npy", np.zeros((19, 32, 32, 3), np.uint8))
    assert "holds 19 images, and labels.npy beside it 20 labels" in error_of(
        CIFARCDataModule(str(cifar_c))
    )
    for content in (b"PK", b"", (cifar_c / "contrast.npy").read_bytes()[:-9]):
        (cifar_c / "fog.npy").write_bytes(content)
        said = error_of(CIFARCDataModule(str(cifar_c)))
        assert "fog.npy can't be read as a NumPy array: damaged" in said
        assert "pickle" not in said
    with open(cifar_c / "fog.npy", "wb") as file:
        np.savez(file, np.zeros(3))
    assert "can't be read" in error_of(CIFARCDataModule(str(cifar_c)))
    shown = CIFARCDataModule(str(cifar_c), corruption="contrast", severity=1)
    shown.prepare()
    with (
        pytest.raises(FoveaError, match=r"fog\.npy can't be read"),
        shown.corrupting(Corruption("fog", 2)),
    ):
        pass
    assert shown.version == Corruption("contrast", 1)
    assert len(shown.dataset("test")) == 4
    for labels, said in (
        (np.arange(20), "labels from 0 to 19"),
        (np.array(3), "labels.npy holds int64 of shape ()"),
        (np.zeros(20), "labels.npy holds float64"),
        (np.zeros(19, int), "labels.npy holds int64 of shape (19,)"),
        (np.zeros(25, int), "holds 20 images, and labels.npy beside it 25 labels"),
    ):
        np.save(cifar_c / "labels.npy", labels)
        assert said in error_of(CIFARCDataModule(str(cifar_c), corruption="contrast", severity=1))


def images_of(data, corruption):
    with data.corrupting(corruption):
        loader = data.test_dataloader()
        pairs = [(i.item(), x) for b in loader for i, x in zip(b.indices, b.images, strict=True)]
    return {i: image.clone() for i, image in pairs if i >= 0}


def test_corrupted_on_the_fly_from_memory_and_from_files_alike(tmp_path):
    for k in range(6):
        save(tmp_path / "test" / "ab"[k % 2] / f"{k}.jpg", seed=k, side=44)
    corruption = Corruption("shot_noise", 4)
    seen = {}
    for workers, held, size in ((0, False, 2), (2, False, 4), (0, True, 2), (2, True, 4)):
        data = FolderDataModule(
            str(tmp_path), batch_size=size, num_workers=workers, in_memory=held, image_size=32
        )
        clean = images_of(data, None)
        found = images_of(data, corruption)
        assert not any(torch.equal(clean[i], found[i]) for i in range(6))
        with data.corrupting(corruption):
            assert torch.equal(data.dataset("test")[3].images, found[3])
        assert torch.equal(images_of(data, None)[3], clean[3])
        seen[workers, held] = found
    for other in seen.values():
        assert all(torch.equal(other[i], seen[0, False][i]) for i in range(6))


def test_passes_leave_nothing_behind_and_are_counted(tmp_path):
    for k in range(6):
        save(tmp_path / "test" / "ab"[k % 2] / f"{k}.jpg", seed=k, side=44)
    data = FolderDataModule(
        str(tmp_path), batch_size=3, num_workers=1, in_memory=False, image_size=32
    )
    opened = []
    for passes in range(1, 5):
        images_of(data, Corruption("contrast", passes))
        gc.collect()
        opened.append(len(os.listdir("/proc/self/fd")))
        assert data.decoded()[0] == 6 * passes
    assert opened[-1] <= opened[0]


def test_digits_which_lie_in_memory_are_corrupted(tmp_path):
    data = DigitsDataModule(batch_size=64, num_workers=0)
    clean, found = images_of(data, None), images_of(data, Corruption("contrast", 5))
    assert len(found) == data.split_sizes["test"]
    image = clean[0].double()
    by_hand = (image - image.mean()) * 0.15 + image.mean()
    assert (found[0] - by_hand).abs().max() <= 1
    fog = Corruption("fog", 3)
    seeds = [images_of(DigitsDataModule(batch_size=64, seed=seed), fog)[5] for seed in (0, 1)]
    assert not torch.equal(seeds[0], seeds[1])


def test_real_labels(tmp_path):
    shipped = read_real_labels()
    assert len(shipped) == 50_000
    # Beyer et al. 2020: 46,837 of the images have a label, so 3,163 have none.
    assert sum(map(bool, shipped)) == 46_837
    paths = ["a/ILSVRC2012_val_00000003.JPEG", "b/c/ILSVRC2012_val_00000001.JPEG"]
    assert real_labels_of(paths, shipped) == [shipped[2], shipped[0]]
    with pytest.raises(FoveaError, match=r"cat.jpg is none of the 50,000 images"):
        real_labels_of(["cat.jpg"], shipped)
    file = tmp_path / "real.json"
    file.write_text(json.dumps([[5], [], [1, 2]]))
    assert read_real_labels(file) == [[5], [], [1, 2]]
    for content in ("{", "{}", "[[1000]]", "[3]", '[["x"]]'):
        file.write_text(content)
        with pytest.raises(FoveaError, match=r"real\.json"):
            read_real_labels(file)
    with pytest.raises(FoveaError, match="reassessed-imagenet"):
        read_real_labels(tmp_path / "none.json")
