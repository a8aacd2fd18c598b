import numpy as np
import pytest
from PIL import Image
from timm.data import ImageNetInfo

from fovea.data import ImageNetDataModule, imagenet_classes
from fovea.errors import FoveaError

SOME = ["n02119789", "n01440764", "n02100735"]  # labels 278, 0, 212


def make(root, split, wnids, count=4):
    for wnid in wnids:
        (root / split / wnid).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / wnid / f"{wnid}_{i}.JPEG")
    return root


def imagenet(root, **options):
    return ImageNetDataModule(str(root), **{"batch_size": 2, "num_workers": 0, **options})


def error_of(root, **options):
    with pytest.raises(FoveaError) as caught:
        imagenet(root, **options).prepare()
    return str(caught.value)


def test_the_classes_are_those_of_published_weights():
    classes = imagenet_classes()
    assert len(classes) == len(set(classes.values())) == 1000
    assert list(classes) == sorted(classes)
    info = ImageNetInfo("imagenet-1k")
    differing = [
        (name, info.index_to_description(label))
        for label, name in enumerate(classes.values())
        if name not in info.index_to_description(label).split(", ")
    ]
    # The two names that WordNet gives to two classes each are told apart.
    assert differing == [("crane bird", "crane"), ("maillot tank suit", "maillot, tank suit")]
    assert classes["n01440764"] == "tench"
    assert classes["n15075141"] == "toilet tissue"


def test_a_part_numbered_anew(tmp_path):
    make(make(tmp_path, "train", SOME), "val", SOME, 2)
    data = imagenet(tmp_path, classes="present")
    assert data.class_names == [imagenet_classes()[wnid] for wnid in sorted(SOME)]
    dataset = data.dataset("val")
    assert [dataset.path(i).split("/")[-2] for i in (0, 2, 4)] == sorted(SOME)
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_part_under_the_labels_of_all(tmp_path):
    make(make(tmp_path, "train", SOME), "val", SOME, 1)
    data = imagenet(tmp_path, classes="some")
    assert data.num_classes == 1000
    labels = data.dataset("val").labels.tolist()
    order = list(imagenet_classes())
    assert labels == [order.index(wnid) for wnid in sorted(SOME)] == [0, 212, 278]


def test_missing_classes_are_named(tmp_path):
    make(make(tmp_path, "train", SOME), "val", SOME)
    message = error_of(tmp_path)
    assert "lacks 997 of the 1000 classes" in message
    assert "data.classes=present" in message
    assert "scripts/prepare_imagenet.py" in message


def test_folders_that_are_no_class_are_named(tmp_path):
    make(tmp_path, "train", [*SOME, "n99999999"])
    message = error_of(tmp_path, classes="present")
    assert "n99999999" in message
    assert "data=folder" in message


def test_a_flat_part_is_split(tmp_path):
    root = make(tmp_path, ".", SOME, 10)
    data = imagenet(root, classes="present", val_fraction=0.2, test_fraction=0.1)
    assert data.split_sizes == {"train": 21, "val": 6, "test": 3}


def test_a_flat_val_folder_names_the_script(tmp_path):
    make(tmp_path, "train", SOME)
    (tmp_path / "val").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    assert "scripts/prepare_imagenet.py" in error_of(tmp_path, classes="present")


def test_missing_data_names_the_script_and_the_folder(tmp_path):
    message = error_of(tmp_path / "imagenet")
    assert str(tmp_path / "imagenet") in message
    assert "python scripts/prepare_imagenet.py" in message


def test_there_is_no_test_split_but_val_can_be_kept_for_the_end(tmp_path):
    make(make(tmp_path, "train", SOME, 10), "val", SOME, 2)
    with pytest.raises(FoveaError, match="split=val"):
        imagenet(tmp_path, classes="present").dataset("test")
    data = imagenet(tmp_path, classes="present", official_val="test", val_fraction=0.1)
    assert data.split_sizes == {"train": 27, "val": 3, "test": 6}
    assert "/val/" in data.dataset("test").path(0)
    assert "/train/" in data.dataset("val").path(0)


def test_val_may_hold_more_classes_than_a_part_of_train(tmp_path, caplog):
    make(make(tmp_path, "train", SOME[:2]), "val", SOME)
    data = imagenet(tmp_path, classes="present")
    assert data.split_sizes == {"train": 8, "val": 8}
    assert "not used: n02100735" in caplog.text


@pytest.mark.parametrize(("classes", "count"), [("present", 3), ("some", 1000)])
def test_val_alone_can_be_evaluated(tmp_path, classes, count):
    data = imagenet(make(tmp_path, "val", SOME), classes=classes)
    assert data.num_classes == count
    assert data.split_sizes == {"val": 12}
    assert len(data.val_dataloader()) == 6
    with pytest.raises(FoveaError, match="no train/"):
        data.train_dataloader()


def test_val_without_a_class_of_train_is_refused(tmp_path):
    make(make(tmp_path, "train", SOME), "val", SOME[:2])
    assert "n02100735" in error_of(tmp_path, classes="present")


@pytest.mark.parametrize("options", [{"classes": "presen"}, {"official_val": "train"}])
def test_impossible_settings(tmp_path, options):
    with pytest.raises(FoveaError, match=r"data\.(classes|official_val)="):
        imagenet(tmp_path, **options)


def test_default_preprocessing(tmp_path):
    preprocessing = imagenet(tmp_path).preprocessing
    assert (preprocessing.image_size, preprocessing.resize) == (224, 256)
    assert preprocessing.mean == (0.485, 0.456, 0.406)
