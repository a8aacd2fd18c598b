"""The data module's contract on the embedded data set."""

import json
import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fovea.data import Augment, DigitsDataModule, SampleKey
from fovea.errors import FoveaError
from fovea.types import Batch, Preprocessing


def digits(**options):
    common = {"val_fraction": 0.16, "test_fraction": 0.2, "hflip": False, "num_workers": 0}
    return DigitsDataModule(**{**common, **options})


def pixels(loader):
    return torch.cat([batch.images for batch in loader])


STRONG = {"augment": Augment(policy="randaug", erase=0.3, rotate=10)}


def test_sizes_and_shapes():
    data = digits()
    assert data.split_sizes == {"train": 1150, "val": 288, "test": 359}
    assert data.num_classes == 10
    assert data.class_names == [str(i) for i in range(10)]
    assert data.image_shape == (1, 8, 8)
    assert sum(data.class_counts("train")) == 1150
    assert max(data.class_counts("test")) - min(data.class_counts("test")) <= 2


def test_splits_hold_each_digit_of_scikit_learn_once():
    data, reference = digits(), load_digits()
    seen = {}
    for split in ("train", "val", "test"):
        dataset = data.dataset(split)
        for i in range(len(dataset)):
            sample, number = dataset[i], int(dataset.path(i).removeprefix("digits/"))
            assert int(sample.indices) == i
            assert number not in seen
            seen[number] = int(sample.labels)
            levels = sample.images[0].double() * 16 / 255
            assert np.abs(levels.numpy() - reference.images[number]).max() < 0.04
    assert [seen[number] for number in range(1797)] == reference.target.tolist()


def test_normalised_train_images_have_mean_zero_and_deviation_one():
    data = digits()
    images = pixels(data.dataloader("train"))[:1150]
    normalised = data.preprocessing.normalize(images)
    assert abs(normalised.mean()) < 0.02
    assert abs(normalised.std() - 1) < 0.02


def test_splits_do_not_depend_on_the_run_seed_but_on_the_split_seed():
    one, two, other = digits(seed=0), digits(seed=1), digits(split_seed=1)
    for split in ("train", "val", "test"):
        prints = [d.splits_recorded[split]["fingerprint"] for d in (one, two, other)]
        assert prints[0] == prints[1] != prints[2]


def test_fingerprints_stay_those_of_the_data_set():
    data = digits()
    before = data.split_fingerprints()
    assert before == {name: split.fingerprint() for name, split in data.splits.items()}
    data.use_class_order(data.class_names[::-1])
    assert data.split_fingerprints() == before == digits().split_fingerprints()


def test_check_reads_no_file_of_images_in_memory():
    data = digits()
    assert data.num_files() == 0
    assert data.check() == []


def test_the_record_is_plain():
    record = digits(fraction=0.5).splits_recorded
    assert json.loads(json.dumps(record)) == record
    assert record["val"]["cut_from"] == "train"
    assert record["train"]["fraction"] == 0.5


def test_a_batch():
    batch = next(iter(digits(batch_size=32).train_dataloader()))
    assert isinstance(batch, Batch)
    assert batch.images.shape == (32, 1, 8, 8)
    assert batch.images.dtype == torch.uint8
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.labels.shape == batch.indices.shape == (32,)
    assert batch.targets is None


def test_labels_belong_to_their_images():
    data = digits(batch_size=32)
    labels = data.dataset("train").labels
    for batch in data.train_dataloader():
        assert torch.equal(batch.labels, labels[batch.indices])


def test_on_the_device_images_are_normalised_and_channels_last():
    data = digits(channels=3, image_size=16)
    batch = next(iter(data.val_dataloader()))
    ready = data.on_after_batch_transfer(batch, 0)
    assert ready.images.is_contiguous(memory_format=torch.channels_last)
    expected = (batch.images.float() / 255 - 0.3053) / 0.3760
    assert torch.allclose(ready.images, expected, atol=1e-6)
    assert ready.targets is None


@pytest.mark.parametrize("options", [STRONG, {**STRONG, "sampling": "balanced", "repeats": 2}])
def test_any_number_of_workers_gives_the_same_pixels(options):
    options = {**options, "batch_size": 100, "limit_per_class": 40}
    alone, two = digits(num_workers=0, **options), digits(num_workers=2, **options)
    for data in (alone, two):
        data.epoch = 3
    assert torch.equal(pixels(alone.train_dataloader()), pixels(two.train_dataloader()))
    assert torch.equal(pixels(alone.val_dataloader()), pixels(two.val_dataloader()))


def test_persistent_workers_see_the_epoch():
    data = digits(num_workers=1, batch_size=100, limit_per_class=30, **STRONG)
    loader = data.train_dataloader()
    first = pixels(loader)
    data.epoch = 1
    second = pixels(loader)
    data.epoch = 0
    assert torch.equal(pixels(loader), first)
    assert not torch.equal(second, first)


def test_seeds_and_copies_and_epochs_differ():
    data = digits(**STRONG)
    data.train_dataloader()
    dataset = data._dataset("train", training=True)
    keys = [SampleKey(5, epoch, copy) for epoch in range(4) for copy in range(4)]
    assert len({dataset[key].images.numpy().tobytes() for key in keys}) > 12
    assert torch.equal(dataset[keys[3]].images, dataset[keys[3]].images)


def test_loading_leaves_the_global_generators_alone():
    data = digits(**STRONG)
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for _ in data.train_dataloader():
        pass
    assert torch.equal(torch.rand(3), expected)
    state = random.getstate()
    random.seed(5)
    assert random.getstate() == state


def test_evaluation_reads_in_order_and_pads_the_last_batch():
    data = digits(batch_size=64)
    indices = torch.cat([batch.indices for batch in data.dataloader("test")])
    assert indices[:359].tolist() == list(range(359))
    assert indices[359:].tolist() == [-1] * (6 * 64 - 359)


def test_test_split_may_be_set_to_another():
    data = digits()
    data.test_split = "val"
    assert len(data.test_dataloader()) == 5


def test_pretrained_weights_decide_what_the_user_left_open():
    data = digits(std=[0.5])
    data.use_preprocessing(Preprocessing(16, 3, (0.1, 0.2, 0.3), (0.4,) * 3, 18, "bicubic"))
    assert data.image_shape == (3, 16, 16)
    assert data.preprocessing == Preprocessing(16, 3, (0.1, 0.2, 0.3), (0.5,) * 3, 18, "bicubic")
    assert next(iter(data.val_dataloader())).images.shape[1:] == (3, 16, 16)
    assert next(iter(data.train_dataloader())).images.shape[1:] == (3, 16, 16)


def test_fraction_and_limit_apply_to_train_alone():
    tenth = digits(fraction=0.1)
    assert tenth.split_sizes["val"] == 288
    for part, whole in zip(
        tenth.class_counts("train"), digits().class_counts("train"), strict=True
    ):
        assert abs(part - whole / 10) <= 0.5
    limited = digits(limit_per_class=7)
    assert limited.class_counts("train") == [7] * 10
    assert limited.split_sizes["val"] == 288


def test_unknown_splits_name_the_known():
    with pytest.raises(FoveaError, match=r"train, val, test\. Did you mean 'val'"):
        digits().dataset("valid")


def test_the_largest_batch_that_fits_is_named():
    with pytest.raises(FoveaError, match=r"data\.batch_size=1150"):
        digits(batch_size=2000).check_batch()
    with pytest.raises(FoveaError, match=r"data\.batch_size=1148"):
        digits(batch_size=1152).check_batch(world=2, accumulate=2)
    with pytest.raises(FoveaError, match="larger than the train split"):
        digits(batch_size=2000).train_dataloader()


def test_the_nearest_divisible_batches_are_named():
    data = digits(batch_size=64)
    with pytest.raises(FoveaError, match=r"data\.batch_size=63 or data\.batch_size=66"):
        data.check_batch(world=3)
    with pytest.raises(FoveaError, match="fewer"):
        digits(batch_size=64, limit_per_class=1).check_batch(world=100)
    assert data.per_device_batch(world=4, accumulate=2) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, r"data\.batch_size=0"),
        ({"fraction": 0}, r"data\.fraction=0"),
        ({"fraction": 1.5}, r"data\.fraction=1\.5"),
        ({"limit_per_class": 0}, r"data\.limit_per_class=0"),
        ({"num_workers": -1}, r"data\.num_workers=-1"),
        ({"num_workers": "many"}, r"data\.num_workers=many"),
        ({"sampling": "balance"}, r"Did you mean 'balanced'"),
        ({"on_bad_image": "ignore"}, r"data\.on_bad_image=ignore"),
        ({"repeats": 0}, r"data\.repeats=0"),
        ({"eval_batch_size": 0}, r"data\.eval_batch_size=0"),
        ({"crop_ratio": 1.5}, r"data\.crop_ratio=1\.5"),
    ],
)
def test_impossible_settings_name_their_key(options, words):
    with pytest.raises(FoveaError, match=words):
        digits(**options)


def test_describes_itself():
    rows = dict(digits().describe())
    assert "10 classes" in rows["data"]
    assert rows["train"] == "1,150 images, 111-117 a class"
    assert "cut from train" in rows["test"]
    assert rows["workers"] == "0"
