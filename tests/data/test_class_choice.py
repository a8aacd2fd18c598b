"""Some classes of a data set, chosen by name."""

import pytest
import torch

from fovea.arguments import prepare_arguments
from fovea.data import CIFARDataModule, DigitsDataModule, FolderDataModule
from fovea.errors import FoveaError
from photo import photo

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def digits(**options):
    common = {"val_fraction": 0.16, "test_fraction": 0.2, "hflip": False, "num_workers": 0}
    return DigitsDataModule(**{**common, **options})


def digits_seen(data, split):
    """Return {path: class name} of a split."""
    shown = data.dataset(split)
    names = [data.class_names[label] for label in shown.labels.tolist()]
    return {shown.path(i): name for i, name in enumerate(names)}


def test_the_images_are_those_of_the_classes_in_the_data_sets_own_order():
    whole, part = digits(), digits(classes=[7, "2", 5])
    assert part.class_names == ["2", "5", "7"]
    assert part.num_classes == 3
    assert "3 of the 10 classes of scikit-learn digits" in part.describe()[0][1]
    everything = [digits_seen(whole, split) for split in ("train", "val", "test")]
    wanted = {path: name for seen in everything for path, name in seen.items() if name in "257"}
    found = {}
    for split in ("train", "val", "test"):
        found |= digits_seen(part, split)
    assert found == wanted
    assert part.split_fingerprints() == digits(classes=["2", "5", "7"]).split_fingerprints()
    assert (
        part.split_fingerprints()["test"] != digits(classes=[2, 5, 8]).split_fingerprints()["test"]
    )


def test_a_draw_of_few_images_depends_on_the_seed_alone():
    drawn = [digits(classes=[2, 5], limit_per_class=4, split_seed=seed) for seed in (0, 0, 1)]
    paths = [set(digits_seen(data, "train")) for data in drawn]
    assert paths[0] == paths[1] != paths[2]
    assert all(data.class_counts("train") == [4, 4] for data in drawn)
    more = digits(classes=[2, 5], limit_per_class=9, split_seed=0)
    assert paths[0] < set(digits_seen(more, "train"))


@pytest.mark.parametrize("made", [CIFARDataModule, FolderDataModule])
def test_folders_of_images(tmp_path, made):
    for split, count in (("train", 5), ("test", 2)):
        for name in NAMES:
            for i in range(count):
                file = tmp_path / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                photo(32, 32, seed=i).save(file)
    data = made(str(tmp_path), batch_size=4, num_workers=0, classes=["truck", "cat"])
    assert data.class_names == ["cat", "truck"]
    assert data.split_sizes == {"train": 9, "val": 1, "test": 4}
    assert data.dataset("test").path(2).endswith("test/truck/0.png")
    assert data.dataset("test").labels.tolist() == [0, 0, 1, 1]
    batch = next(iter(data.train_dataloader()))
    assert set(batch.labels.tolist()) <= {0, 1}
    with pytest.raises(FoveaError, match=r"'trcuk'.*Did you mean 'truck'\? It has 10: airplane"):
        made(str(tmp_path), classes=["cat", "trcuk"]).prepare()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["2", "12"], r"data\.classes has '12', and the data set \(scikit-learn digits\) no such"),
        ([2, "2"], r"data\.classes has '2' twice"),
        ([], r"data\.classes=\[\] leaves no class"),
    ],
)
def test_names_that_make_no_choice(classes, said):
    with pytest.raises(FoveaError, match=said):
        digits(classes=classes).prepare()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.classes=[]", "a list of 1 or more"),
        ("data.classes=cat", "data.classes='cat' .text.: expected a list"),
        ("data.classes=[1.5,2]", "data.classes"),
    ],
)
def test_what_is_no_list_of_names_is_told_at_once(word, said):
    with pytest.raises(FoveaError, match=said):
        prepare_arguments("train", ["data=digits", word])


def test_normalisation_is_that_of_the_whole_data_set():
    assert torch.equal(
        torch.tensor(digits(classes=[1, 2]).preprocessing.mean),
        torch.tensor(digits().preprocessing.mean),
    )
