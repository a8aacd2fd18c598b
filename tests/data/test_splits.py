import hashlib
import time
from pathlib import Path

import pytest
import torch

from fovea.data import splits
from fovea.data.sources import FileSource, MemorySource
from fovea.data.splits import Cutting, Found, Split, allot, cut, draw_hashes, subset
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
    share = allot(counts, 20, counts, torch.tensor([0.2, 0.9, 0.1, 0.5]))
    assert share.tolist() == [3, 4, 3, 10]


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


# What stays where it was when files come and go.


def files(paths):
    """Files "class/name", one class a folder, listed in sorted order as a folder is."""
    paths = sorted(paths)
    names = sorted({path.partition("/")[0] for path in paths})
    labels = torch.tensor([names.index(path.partition("/")[0]) for path in paths])
    return Split.whole(FileSource(Path("/nowhere"), paths), labels), names


def membership(paths, val=0.1, test=0.1):
    """Path -> the split it is cut into."""
    everything, names = files(paths)
    splits, _ = Cutting(val, test, 0).apply(Found(names, {"train": everything}, True, "here"))
    return {
        split.source.relative_path(n): name for name, split in splits.items() for n in split.numbers
    }


def moved(before, after):
    """Path -> (old, new split), of the paths that both have."""
    return {p: (before[p], after[p]) for p in before if p in after and before[p] != after[p]}


SHAPES = {
    "equal classes": [20, 20],
    "unequal classes": [70, 20, 10, 33],
    "many classes": [12] * 30,
    "single images": [1] * 40 + [9] * 5,
}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES.keys())
def test_one_file_more_or_less_moves_almost_nothing(sizes):
    paths = [f"c{c:02}/{i}.png" for c, size in enumerate(sizes) for i in range(size)]
    before = membership(paths)
    sizes_before = [list(before.values()).count(name) for name in ("val", "test")]
    changes = [[*paths, f"c{c:02}/a new one {c}.png"] for c in range(len(sizes))]
    changes += [[p for p in paths if p != gone] for gone in paths[::7]]
    for changed in changes:
        after = membership(changed)
        # One image of val and one of test make room; where quotas change, two classes swap a place.
        assert len(moved(before, after)) <= 4
        grown = [list(after.values()).count(name) for name in ("val", "test")]
        assert all(abs(a - b) <= 1 for a, b in zip(grown, sizes_before, strict=True))


@pytest.mark.parametrize("number", range(20))
def test_an_added_file_brings_no_trained_image_into_test(number):
    """Unless its class's quota of test grows: here 2 of 20 and of 21."""
    paths = [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(20)]
    before, after = membership(paths), membership([*paths, f"cat/0{number}.png"])
    there = moved(before, after)
    assert len(there) <= 2
    assert all(path.startswith("cat/") for path in there)
    assert "test" not in [new for _, new in there.values()]


def test_a_test_quota_that_grows_takes_one_image():
    paths = [f"cat/{i}.png" for i in range(14)]
    before, after = membership(paths), membership([*paths, "cat/new.png"])
    counts = [list(m.values()).count("test") for m in (before, after)]
    assert counts == [1, 2]  # 1.4 and 1.5 of them
    assert len([p for p, (_, new) in moved(before, after).items() if new == "test"]) <= 1


def test_a_new_class_leaves_the_others_alone():
    paths = [f"c{c:02}/{i}.png" for c in range(30) for i in range(12)]
    before = membership(paths)
    after = membership([*paths, *(f"a new class/{i}.png" for i in range(12))])
    assert len(moved(before, after)) <= 8


def test_a_subset_hardly_depends_on_the_other_files():
    paths = [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(20)]
    kept = []
    for some in (paths, [*paths, "cat/new.png"]):
        part = subset(files(some)[0], 2, 0.5, None, seed=0)
        assert part.counts(2) == [10, 10]
        kept.append({part.source.relative_path(n) for n in part.numbers})
    assert len(kept[0] - kept[1]) <= 1


def test_draws_are_the_same_on_every_machine():
    """Pinned: another value here would cut every data set anew."""
    digest = hashlib.blake2b(b"val/3/x/1", digest_size=8).digest()
    draws = draw_hashes(split_of([0, 0]), "val", 3)
    assert draws[1] == int.from_bytes(digest, "little") >> 1
    assert draw_hashes(split_of([0]), "val", 0).tolist() == [5918816127638899960]


NAMES = ["a/1.png", "b/é 2.png", "b/日本.png", "c/with\nline\t.png", "c/\udcff\udcc3", "d/😀"]


@pytest.mark.parametrize("chunk", [1, 4, 2**16])
@pytest.mark.parametrize("in_memory", [False, True])
def test_hashes_of_paths_are_what_they_are_said_to_be(monkeypatch, chunk, in_memory):
    """Against the plain definition: fingerprints are recorded, draws decide what is cut."""
    monkeypatch.setattr(splits, "_CHUNK", chunk)
    everything = split_of([0, 7, 7, 2, 1, 12]) if in_memory else files(NAMES)[0]
    part = everything.take(torch.tensor([True, False, True, True, True, True]))
    names = [part.source.relative_path(n) for n in part.numbers.tolist()]
    assert in_memory or names == [NAMES[0], *NAMES[2:]]
    digest = hashlib.sha256()
    for name, label in zip(names, part.labels.tolist(), strict=True):
        digest.update(f"{name}\t{label}\n".encode(errors="replace"))
    assert part.fingerprint() == digest.hexdigest()[:16]
    hashes = [
        hashlib.blake2b(f"val/3/{name}".encode(errors="backslashreplace"), digest_size=8).digest()
        for name in names
    ]
    draws = [int.from_bytes(digest, "little") >> 1 for digest in hashes]
    assert draw_hashes(part, "val", 3).tolist() == draws


def test_an_empty_split_has_a_fingerprint_too():
    for everything in (split_of([0]), files(["a/1.png"])[0]):
        nothing = everything.take(torch.tensor([False]))
        assert nothing.fingerprint() == hashlib.sha256(b"").hexdigest()[:16]
        assert draw_hashes(nothing, "val", 3).tolist() == []


def test_names_that_are_no_text_can_be_drawn():
    everything, _ = files(["a/\udcff.png", "a/\udcfe.png"])
    assert len(set(draw_hashes(everything, "val", 0).tolist())) == 2


def test_a_million_files_are_cut_in_seconds():
    paths = [f"n{c:08}/n{c:08}_{i}.JPEG" for c in range(100) for i in range(1281)]
    everything, _ = files(paths)
    began = time.perf_counter()
    _, part = cut(everything, 12810, 100, "val", 0)
    assert len(part) == 12810
    assert time.perf_counter() - began < 2  # a tenth of ImageNet; some 0.12 s
