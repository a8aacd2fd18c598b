import pytest
import torch

from fovea.data.sources import MemorySource
from fovea.data.splits import Cutting, Found, Split, allot, cut, subset
from fovea.errors import FoveaError


def split_of(labels):
    labels = torch.tensor(labels)
    blank = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    return Split.whole(MemorySource(blank, "x"), labels)


def numbers(split):
    return set(split.numbers.tolist())


IMBALANCED = [0] * 70 + [1] * 20 + [2] * 10


def test_a_cut_is_stratified_disjoint_and_complete():
    rest, part = cut(split_of(IMBALANCED), 20, 3, "val", 0)
    assert part.counts(3) == [14, 4, 2]
    assert rest.counts(3) == [56, 16, 8]
    assert numbers(rest) | numbers(part) == set(range(100))
    assert not numbers(rest) & numbers(part)


@pytest.mark.parametrize("total", [1, 3, 17, 50, 97])
def test_a_cut_has_the_size_asked_for_and_leaves_each_class_one(total):
    rest, part = cut(split_of(IMBALANCED), total, 3, "val", 0)
    assert len(part) == total
    assert min(rest.counts(3)) >= 1
    ideal = [0.7 * total, 0.2 * total, 0.1 * total]
    if total <= 50:
        assert all(abs(n - x) < 1 for n, x in zip(part.counts(3), ideal, strict=True))


def test_cuts_depend_on_the_seed_alone():
    first, again, other = (cut(split_of(IMBALANCED), 20, 3, "val", seed)[1] for seed in (0, 0, 1))
    assert numbers(first) == numbers(again)
    assert numbers(first) != numbers(other)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_classes_of_one_image_can_be_cut_too():
    rest, part = cut(split_of(list(range(40))), 4, 40, "val", 0)
    assert len(part) == 4
    assert len(rest) == 36


def test_allotment_by_largest_remainder():
    counts = torch.tensor([10, 10, 10, 30])
    share = allot(counts, 20, counts, torch.Generator().manual_seed(0))
    assert share.sum() == 20
    assert share[3] == 10
    assert sorted(share[:3].tolist()) == [3, 3, 4]


def test_fractions_keep_the_proportions_and_are_nested():
    small, large = (subset(split_of(IMBALANCED), 3, f, None, seed=0) for f in (0.1, 0.3))
    assert small.counts(3) == [7, 2, 1]
    assert large.counts(3) == [21, 6, 3]
    assert numbers(small) < numbers(large)


def test_no_class_is_lost_in_a_small_fraction():
    assert subset(split_of(IMBALANCED), 3, 0.01, None, seed=0).counts(3) == [1, 1, 1]


def test_limit_per_class():
    assert subset(split_of(IMBALANCED), 3, 1.0, 15, seed=0).counts(3) == [15, 15, 10]
    assert subset(split_of(IMBALANCED), 3, 0.1, 2, seed=0).counts(3) == [2, 2, 1]


def found(undivided, **splits):
    return Found(["a", "b", "c"], {k: split_of(v) for k, v in splits.items()}, undivided, "here")


def test_an_undivided_set_is_cut_in_three():
    splits, record = Cutting(0.1, 0.2, 5).apply(found(True, train=IMBALANCED))
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 70,
        "val": 10,
        "test": 20,
    }
    assert splits["test"].counts(3) == [14, 4, 2]
    assert splits["val"].counts(3) == [7, 2, 1]
    assert record["val"] == {"cut_from": "train", "fraction": 0.1, "split_seed": 5}
    assert list(splits) == ["train", "val", "test"]


def test_val_is_cut_from_train_and_never_from_test():
    splits, record = Cutting(0.2, 0.2, 0).apply(found(False, train=IMBALANCED, test=[0, 1, 2]))
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 80,
        "val": 20,
        "test": 3,
    }
    assert record["test"] == {"from": "here"}


def test_a_divided_set_without_test_gets_none():
    splits, _ = Cutting(0.2, 0.2, 0).apply(found(False, train=IMBALANCED, val=[0, 1, 2]))
    assert {name: len(split) for name, split in splits.items()} == {"train": 100, "val": 3}


def test_the_test_split_does_not_depend_on_how_much_val_takes():
    one, two = (Cutting(v, 0.2, 0).apply(found(True, train=IMBALANCED))[0] for v in (0.1, 0.3))
    assert numbers(one["test"]) == numbers(two["test"])


@pytest.mark.parametrize("fractions", [(0, 0.1), (1, 0), (-0.1, 0), (0.5, 0.5), (0.1, -0.1)])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(FoveaError, match=r"data\.(val|test)_fraction"):
        Cutting(*fractions, 0)


def test_too_few_images_to_cut():
    with pytest.raises(FoveaError, match="too few"):
        Cutting(0.4, 0.4, 0).apply(found(True, train=[0]))
