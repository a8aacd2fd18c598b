import io
import os

import imagehash
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from fovea.data import FolderDataModule, duplicates, fingerprints, hash_cache
from fovea.data.duplicates import DuplicateFinder, candidates
from fovea.data.fingerprints import Fingerprints
from fovea.data.sources import MemorySource
from fovea.data.splits import Split


def photo(seed, size=(200, 150)):
    """A made-up photograph: coloured shapes of many sizes on a gradient."""
    rng = np.random.default_rng(seed)
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    tilt = rng.uniform(-1, 1, (3, 2))
    pixels = 128 + 60 * (tilt[:, :1, None] * (x - 0.5) + tilt[:, 1:, None] * (y - 0.5))
    for radius in (0.4, 0.3, 0.25, 0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.07, 0.07, 0.05, 0.05):
        cx, cy, stretch = *rng.uniform(0, 1, 2), rng.uniform(0.5, 2)
        shape = ((x - cx) ** 2 * stretch + (y - cy) ** 2 / stretch) < radius**2
        pixels[:, shape] = rng.uniform(0, 255, (3, 1))
    pixels += rng.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def encoded(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


CHANGES = {
    "as_it_is": lambda image: image,
    "encoded": lambda image: encoded(image, 25),
    "half": lambda image: image.resize((100, 75)),
    "square": lambda image: image.resize((96, 96)),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "faint": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "grey": lambda image: image.convert("L"),
    "cropped": lambda image: image.crop((3, 2, 197, 148)),
    "mirrored": lambda image: ImageOps.mirror(image),
    "mirrored_encoded": lambda image: encoded(ImageOps.mirror(image), 40),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """60 train photos; of 30 test photos ten are changed copies of the first train photos."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(60):
        save(photo(number), root / "train" / "ab"[number % 2] / f"{number:03}.jpg")
    for number, (name, change) in enumerate(CHANGES.items()):
        save(change(photo(number)), root / "test" / "ab"[number % 2] / f"{name}.jpg")
    for number in range(100, 120):
        save(photo(number), root / "test" / "ab"[number % 2] / f"other{number}.jpg")
    return root


def save(image, path, quality=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)


def splits_of(root):
    data = FolderDataModule(str(root), image_size=32, num_workers=0, val_fraction=0.01)
    return data.splits


def name_of(split, index):
    return os.path.basename(split.source.path(int(split.numbers[index]))).removesuffix(".jpg")


def test_changed_copies_are_found_and_other_photos_are_not(root):
    splits = splits_of(root)
    # The one image that was cut for val may be a planted one's twin.
    train = Split(
        splits["train"].source,
        torch.cat([splits["train"].numbers, splits["val"].numbers]),
        torch.cat([splits["train"].labels, splits["val"].labels]),
    )
    found = DuplicateFinder().find(splits["test"], train)
    twins = {
        name_of(splits["test"], item.index): (name_of(train, item.twin), item.mirrored)
        for item in found.found
    }
    assert twins == {
        name: (f"{number:03}", "mirrored" in name) for number, name in enumerate(CHANGES)
    }
    assert (found.unreadable, found.flat) == (0, 0)
    assert all(item.copies == 1 and item.distance <= 10 for item in found.found)
    similar = [item.similarity for item in found.found]
    assert similar == sorted(similar, reverse=True)
    assert name_of(splits["test"], found.found[0].index) == "as_it_is"
    assert found.found[0].similarity == pytest.approx(1, abs=1e-5)
    # Stricter: only what is the same to the last bit.
    exact = DuplicateFinder(max_distance=0, min_similarity=0.9999).find(splits["test"], train)
    assert name_of(splits["test"], exact.found[0].index) == "as_it_is"
    assert len(exact.found) < len(CHANGES)


def test_hashes_are_those_of_the_library(root):
    split = splits_of(root)["test"]
    prints = fingerprints.fingerprints(split)
    for index in range(len(split)):
        with Image.open(split.source.path(int(split.numbers[index]))) as image:
            theirs = [imagehash.phash(image), imagehash.phash(ImageOps.mirror(image))]
        ours = [prints.hashes[index], prints.mirrored[index]]
        # The library shrinks by another filter, which turns a few bits.
        for a, b in zip(ours, theirs, strict=True):
            assert imagehash.hex_to_hash(f"{int(a):016x}") - b <= 4
    assert len(set(prints.hashes.tolist())) == len(split)


def random_prints(count, seed, usable=0.9):
    """Hashes around a few centres, so that many are close."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).integers(0, 2**64, 20, dtype=np.uint64)

    def near():
        bits = rng.random((count, 64)) < 0.12
        flips = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
        return centres[rng.integers(0, 20, count)] ^ flips

    return Fingerprints(near(), near(), rng.random(count) < usable, 0)


@pytest.mark.parametrize("within", [False, True])
def test_the_search_is_exact(within, monkeypatch):
    monkeypatch.setattr(duplicates, "NEAREST", 10_000)
    monkeypatch.setattr(duplicates, "_COLUMNS", 96)  # several blocks, the last one in part
    first = random_prints(333, 1)
    second = first if within else random_prints(277, 2)
    found = candidates(first, second, 14, within)
    expected = [
        (row, column, bits, mirrored)
        for mirrored, hashes in enumerate([first.hashes, first.mirrored])
        for row in range(len(hashes))
        for column in range(row if within else len(second.hashes))
        if first.usable[row] and second.usable[column]
        if (bits := (int(hashes[row]) ^ int(second.hashes[column])).bit_count()) <= 14
    ]
    assert len(expected) > 1000
    got = zip(found.rows, found.columns, found.distances, found.mirrored, strict=True)
    assert sorted((int(a), int(b), int(c), int(d)) for a, b, c, d in got) == sorted(expected)


def test_of_many_candidates_the_nearest_are_kept(monkeypatch):
    first, second = random_prints(50, 1, usable=1), random_prints(300, 2, usable=1)
    every = candidates(first, second, 20)
    monkeypatch.setattr(duplicates, "NEAREST", 3)
    few = candidates(first, second, 20)
    for row in range(50):
        distances = np.sort(every.distances[every.rows == row])
        assert few.distances[few.rows == row].tolist() == distances[:3].tolist()


def memory_split(images):
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
    return Split.whole(MemorySource(torch.stack(pixels), "made"), torch.zeros(len(images)).long())


def test_within_a_split_one_of_each_remains():
    images = [photo(seed) for seed in (0, 1, 0, 2, 1, 0)]
    images.append(ImageOps.mirror(images[3]))
    split = memory_split(images)
    found = DuplicateFinder().find(split, split).found
    assert {(item.index, item.mirrored) for item in found} == {
        (2, False), (4, False), (5, False), (6, True)
    }  # fmt: skip
    assert all(item.twin < item.index for item in found)
    assert {item.index: item.copies for item in found} == {2: 1, 4: 1, 5: 2, 6: 1}


def test_blank_images_match_nothing_and_broken_ones_are_counted(tmp_path):
    for split in ("train", "test"):
        for number in range(4):
            save(photo(number + (split == "test") * 50), tmp_path / split / "a" / f"{number}.jpg")
        for grey in (0, 128, 255):
            save(Image.new("RGB", (80, 60), (grey,) * 3), tmp_path / split / "a" / f"g{grey}.jpg")
    (tmp_path / "test" / "a" / "broken.jpg").write_bytes(b"no image")
    splits = splits_of(tmp_path)
    found = DuplicateFinder().find(splits["test"], splits["train"])
    assert found.found == []
    assert found.unreadable == 1
    assert found.left_out().startswith("Not compared were images of both splits: 1 that can't be")
    assert found.flat == 6 - sum("g" in name_of(splits["val"], i) for i in range(1))


def test_images_too_small_to_tell_apart_are_not_compared():
    tiny = memory_split([photo(0).resize((15, 20)), photo(0).resize((15, 20))])
    small = memory_split([photo(0).resize((16, 20)), photo(0).resize((16, 20))])
    assert DuplicateFinder().find(tiny, tiny).found == []
    assert "2 that are blank or smaller than 16" in DuplicateFinder().find(tiny, tiny).left_out()
    assert len(DuplicateFinder().find(small, small).found) == 1
    assert DuplicateFinder().find(small, small).left_out() == ""


def test_hashes_are_kept_until_a_file_changes(root, tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "SMALLEST_KEPT", 5)
    read = []
    thumbnail = fingerprints._thumbnail
    monkeypatch.setattr(fingerprints, "_thumbnail", lambda p: read.append(1) or thumbnail(p))
    split = splits_of(root)["test"]
    first = fingerprints.fingerprints(split)
    assert len(read) == len(split)
    again = fingerprints.fingerprints(splits_of(root)["test"])
    assert len(read) == len(split)
    for name in ("hashes", "mirrored", "usable"):
        assert np.array_equal(getattr(first, name), getattr(again, name))

    path = split.source.path(int(split.numbers[7]))
    before = os.stat(path)
    try:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        fingerprints.fingerprints(split)
        assert len(read) == len(split) + 1
        (kept,) = (tmp_path / "cache").glob("hashes*.npy")
        kept.write_bytes(b"damaged")
        fingerprints.fingerprints(split)
        assert len(read) == 2 * len(split) + 1
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_workers_see_what_this_process_sees(root, monkeypatch):
    monkeypatch.setattr(fingerprints, "SMALLEST_FOR_WORKERS", 1)
    monkeypatch.setenv("FOVEA_CACHE", "")
    split = splits_of(root)["test"]
    alone, shared = (fingerprints.fingerprints(split, workers) for workers in (0, 2))
    assert np.array_equal(alone.hashes, shared.hashes)
    assert np.array_equal(alone.mirrored, shared.mirrored)


def test_a_large_photo_decoded_at_a_reduced_scale_has_the_same_thumbnail(tmp_path):
    save(photo(5, (1003, 701)), tmp_path / "large.jpg", quality=95)
    from fovea.data.decoding import open_file

    ours = fingerprints._thumbnail(open_file(tmp_path / "large.jpg")).astype(int)
    with Image.open(tmp_path / "large.jpg") as image:
        theirs = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR).convert("L"))
    assert np.abs(ours - theirs).mean() < 2
