import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from fovea.data import DigitsDataModule, FolderDataModule, ShardsDataModule, decode_image
from fovea.data.images import decode_bytes
from fovea.errors import FoveaError
from shard_tools import (
    SCRIPTS,
    make_shards,
    photo,
    photo_folder,
    prepare_shards,
    shard_crew,
    shard_files,
    shard_images,
    shard_making,
)

SMALL_SHARDS = "shard_mb=0.006"  # of two or three images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return photo_folder(tmp_path_factory.mktemp("photos"), {"train": 9, "val": 4})


def command(*words, **options):
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / "prepare_shards.py"), *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


def error_of(*words):
    with pytest.raises(FoveaError) as caught:
        prepare_shards.prepare([str(word) for word in words])
    return str(caught.value)


def shards(root, **options):
    return ShardsDataModule(str(root), num_workers=0, **options)


def members(root, split):
    """Content by name over all shards of a split, as any tar reader sees them."""
    found = {}
    for path in sorted(Path(root).glob(f"{split}-*.tar")):
        with tarfile.open(path) as archive:
            found |= {member.name: archive.extractfile(member).read() for member in archive}
    return found


def content(root):
    """What was made: names and bytes."""
    return {path.name: path.read_bytes() for path in Path(root).iterdir() if path.is_file()}


def tables(made):
    """`content` without the one line that tells the command."""
    return {name: re.sub(rb'"made_by": "[^"]*"', b"", data) for name, data in content(made).items()}


def stored(root):
    """(decoded image, bytes) of each image by its original path, over all splits."""
    found = {}
    for split in shards(root).splits.values():
        for number in range(len(split)):
            data = split.source.encoded(number)
            found[split.source.relative_path(number)] = (decode_bytes(data, "test"), data)
    return found


def psnr(one, two):
    error = (one.float() - two.float()).square().mean()
    return float(10 * torch.log10(255**2 / error.clamp(min=1e-9)))


def test_files_are_stored_untouched_as_any_tar_reader_sees(photos, tmp_path):
    made = make_shards(photos, tmp_path / "made", SMALL_SHARDS)
    for split in ("train", "val"):
        assert len(list(made.glob(f"{split}-*.tar"))) > 3
        found = members(made, split)
        data = FolderDataModule(str(photos)).splits[split]
        assert len(found) == 2 * len(data)
        for row in range(len(data)):
            original = photos / data.source.relative_path(int(data.numbers[row]))
            assert found[f"{row:09d}.jpg"] == original.read_bytes()
            assert int(found[f"{row:09d}.cls"]) == int(data.labels[row])
    # The layout of WebDataset: a sample's files have one name and follow each other.
    for path in made.glob("*.tar"):
        with tarfile.open(path) as archive:
            names = archive.getnames()
        assert [n.split(".")[0] for n in names[::2]] == [n.split(".")[0] for n in names[1::2]]


def test_the_content_says_what_a_file_is_called(tmp_path):
    photo(tmp_path / "photos" / "train" / "a" / "0.png", (9, 9)).rename(
        tmp_path / "photos" / "train" / "a" / "0.jpg"
    )
    photo(tmp_path / "photos" / "val" / "a" / "0.jpeg", (9, 9))
    made = make_shards(tmp_path / "photos", tmp_path / "made")
    assert sorted(members(made, "train")) == ["000000000.cls", "000000000.png"]
    assert sorted(members(made, "val")) == ["000000000.cls", "000000000.jpg"]


def test_a_shard_mixes_the_classes(tmp_path):
    source = photo_folder(tmp_path / "photos", {"train": 60, "val": 2}, size=(8, 8))
    made = make_shards(source, tmp_path / "made", "shard_mb=0.06")
    split = shards(made).splits["train"]
    places = split.source.places[:, 0]
    assert len(places.unique()) >= 4
    for shard in places.unique():
        labels = split.labels[places == shard]
        assert 0.2 < labels.float().mean() < 0.8


def test_sizes_keep_to_what_is_asked_for(photos, tmp_path):
    made = make_shards(photos, tmp_path / "made", "shard_mb=0.02")
    sizes = [path.stat().st_size for path in made.glob("train-*.tar")]
    assert len(sizes) > 1
    assert max(sizes) < 1.2 * 0.02e6 + tarfile.RECORDSIZE
    assert max(sizes) - min(sizes) < 0.01e6


def test_the_same_images_make_the_same_bytes(photos, tmp_path):
    one = make_shards(photos, tmp_path / "one", SMALL_SHARDS, "max_size=20")
    moved = shutil.copytree(photos, tmp_path / "moved")
    two = make_shards(moved, tmp_path / "two", SMALL_SHARDS, "max_size=20")
    content_of_one, content_of_two = tables(one), tables(two)
    assert content_of_one.pop("index.json") != b""
    content_of_two.pop("index.json")
    assert content_of_one == content_of_two


def test_images_are_shrunk_to_their_longer_side(tmp_path):
    train = tmp_path / "photos" / "train" / "a"
    photo(train / "wide.jpg", (200, 100))
    photo(train / "high.png", (90, 160), 1)
    photo(train / "small.jpg", (50, 40), 2)
    photo(train / "small.png", (50, 40), 3)
    photo(train / "line.jpg", (300, 1), 4)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo(train / "turned.jpg", (200, 100), 5, exif=turned)
    photo(tmp_path / "photos" / "val" / "a" / "x.jpg", (10, 10))
    found = stored(make_shards(tmp_path / "photos", tmp_path / "made", "max_size=80"))
    shapes = {name.split("/")[-1]: tuple(image.shape[1:]) for name, (image, _) in found.items()}
    assert shapes == {
        "wide.jpg": (40, 80),
        "high.png": (80, 45),
        "small.jpg": (40, 50),
        "small.png": (40, 50),
        "line.jpg": (1, 80),
        "turned.jpg": (80, 40),
        "x.jpg": (10, 10),
    }
    assert found["train/a/small.jpg"][1] == (train / "small.jpg").read_bytes()
    assert all(data.startswith(b"\xff\xd8") for _, data in found.values())
    for name in ("wide.jpg", "high.png", "turned.jpg"):
        image = found[f"train/a/{name}"][0]
        original = Image.fromarray(decode_image(train / name).permute(1, 2, 0).numpy())
        reference = original.resize((image.shape[2], image.shape[1]), Image.Resampling.BICUBIC)
        reference.save(tmp_path / "reference.jpg", quality=90)
        assert psnr(image, decode_image(tmp_path / "reference.jpg")) > 45


def test_the_longer_side_is_what_ffcv_calls_max_resolution():
    field = pytest.importorskip("ffcv.fields.rgb_image")
    for width, height in ((500, 375), (375, 500), (301, 300)):
        theirs = field.resizer(np.zeros((height, width, 3), np.uint8), 200).shape[:2]
        form = shard_images.Form(200, None, 3)
        ours = form._shrunk(torch.zeros(3, height, width, dtype=torch.uint8)).shape[1:]
        assert max(ours) == max(theirs) == 200
        assert abs(min(ours) - min(theirs)) <= 1


def test_unusual_images_become_plain_ones(tmp_path):
    train = tmp_path / "photos" / "train" / "a"
    train.mkdir(parents=True)
    coarse = np.random.default_rng(0).integers(0, 256, (5, 5), dtype=np.uint8)
    grey = np.array(Image.fromarray(coarse).resize((100, 80), Image.Resampling.BICUBIC))
    Image.fromarray(grey).save(train / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 256).save(train / "sixteen.png")
    Image.new("RGBA", (100, 80), (255, 0, 0, 0)).save(train / "clear.png")
    Image.new("CMYK", (100, 80), (0, 255, 255, 0)).save(train / "cmyk.jpg")
    photo(tmp_path / "photos" / "val" / "a" / "x.jpg", (10, 10))
    found = stored(make_shards(tmp_path / "photos", tmp_path / "made", "max_size=50"))
    encoded = {name.split("/")[-1]: Image.open(io.BytesIO(d)) for name, (_, d) in found.items()}
    assert {n: (i.format, i.mode) for n, i in encoded.items() if n != "x.jpg"} == {
        "grey.png": ("JPEG", "L"),
        "sixteen.png": ("JPEG", "L"),
        "clear.png": ("JPEG", "RGB"),
        "cmyk.jpg": ("JPEG", "RGB"),
    }
    assert (found["train/a/clear.png"][0] > 250).all()  # transparency lies on white
    small = np.array(Image.fromarray(grey).resize((50, 40), Image.Resampling.LANCZOS))
    for name in ("grey.png", "sixteen.png"):
        assert psnr(found[f"train/a/{name}"][0], torch.from_numpy(small)) > 38


def test_quality_is_that_of_the_jpegs(photos, tmp_path):
    images = {}
    for quality in (20, 90):
        made = tmp_path / str(quality)
        images[quality] = stored(make_shards(photos, made, "max_size=24", f"quality={quality}"))
    plain = stored(make_shards(photos, tmp_path / "plain", "max_size=24"))
    for name, (_, data) in plain.items():
        assert data == images[90][name][1]
        assert len(images[20][name][1]) < len(data)
        assert Image.open(io.BytesIO(data)).size == (24, 18)
        # 4:2:0: luma sampled twice as finely as colour, both ways (SOF0's first component).
        sampling = data[data.index(b"\xff\xc0") + 11]
        assert sampling == 0x22


def test_images_in_memory_are_stored_without_loss(tmp_path):
    prepare_shards.prepare(["data=digits", f"out={tmp_path / 'made'}"])
    made, digits = shards(tmp_path / "made"), DigitsDataModule(val_fraction=0.16, test_fraction=0.2)
    assert made.split_fingerprints() == digits.split_fingerprints()
    assert made.preprocessing == digits.preprocessing
    for split in ("train", "val", "test"):
        ours, theirs = made.dataset(split), digits.dataset(split)
        for index in range(0, len(ours), 50):
            assert torch.equal(ours[index].images, theirs[index].images)
            assert ours[index].labels == theirs[index].labels
    prepare_shards.prepare(["data=digits", f"out={tmp_path / 'jpeg'}", "quality=95"])
    lossy = shards(tmp_path / "jpeg").dataset("val")
    assert lossy.source.encoded(0).startswith(b"\xff\xd8")
    ours, theirs = lossy[0].images, digits.dataset("val")[0].images
    assert 20 < psnr(ours, theirs) < 60


def test_cut_splits_stay_as_they_were_cut(tmp_path):
    photo_folder(tmp_path, {"photos": 20}, size=(8, 8))
    made = make_shards(tmp_path / "photos", tmp_path / "made", "data.split_seed=3")
    folder = FolderDataModule(str(tmp_path / "photos"), split_seed=3)
    other = FolderDataModule(str(tmp_path / "photos"), split_seed=4)
    fingerprints = shards(made, split_seed=4, val_fraction=0.3).split_fingerprints()
    assert set(fingerprints) == {"train", "val", "test"}
    assert fingerprints == folder.split_fingerprints()
    assert fingerprints["val"] != other.split_fingerprints()["val"]


def test_shards_can_be_shrunk_further(photos, tmp_path):
    first = make_shards(photos, tmp_path / "first")
    prepare_shards.prepare(
        ["data=shards", f"data.root={first}", f"out={tmp_path / 'second'}", "max_size=16"]
    )
    assert all(max(i.shape[1:]) == 16 for i, _ in stored(tmp_path / "second").values())
    assert (
        shards(tmp_path / "second").split_fingerprints()
        == FolderDataModule(str(photos)).split_fingerprints()
    )


def test_webdataset_reads_them(photos, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    made = make_shards(photos, tmp_path / "made", "max_size=20")
    paths = [str(path) for path in made.glob("train-*.tar")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = webdataset.WebDataset(paths, shardshuffle=False).decode("pil")
        samples = list(dataset.to_tuple("jpg", "cls"))
    assert sorted(label for _, label in samples) == [0] * 9 + [1] * 9
    assert {image.size for image, _ in samples} == {(20, 15)}


# Cut short, and gone on with.


def test_an_interrupted_call_is_gone_on_with(photos, tmp_path, monkeypatch):
    whole = make_shards(photos, tmp_path / "whole", SMALL_SHARDS)
    store, calls = shard_images.Form.store, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return store(self, *arguments)

    monkeypatch.setattr(shard_images.Form, "store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_shards(photos, tmp_path / "cut", SMALL_SHARDS)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.tar")}
    assert 0 < len(done) < len(list(whole.glob("*.tar")))
    assert list((tmp_path / "cut").glob("*.part"))
    with pytest.raises(FoveaError, match=r"index\.json"):
        shards(tmp_path / "cut").prepare()

    make_shards(photos, tmp_path / "cut", SMALL_SHARDS)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    expected, found = tables(whole), tables(tmp_path / "cut")
    assert found.keys() == expected.keys()
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_is_gone_on_with(tmp_path, sign):
    photo(tmp_path / "photos" / "train" / "a" / "0.jpg", (2400, 1600))
    photo(tmp_path / "photos" / "val" / "a" / "0.jpg", (24, 16))
    for i in range(1, 60):
        os.link(
            tmp_path / "photos" / "train" / "a" / "0.jpg",
            tmp_path / "photos" / "train" / "a" / f"{i}.jpg",
        )
    out = tmp_path / "made"
    words = [f"data.root={tmp_path / 'photos'}", f"out={out}", "max_size=200", "shard_mb=0.02"]
    process = command("data=folder", *words)
    # A shard counts once it is recorded; one that is not yet is made again.
    records = out / shard_files.RECORDS
    while process.poll() is None and len(list(records.glob("train-*.tar.json"))) < 2:
        time.sleep(0.01)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if sign == signal.SIGKILL else 130)
    assert "Traceback" not in said
    recorded = [out / path.stem for path in records.glob("*.tar.json")]
    done = {path: path.stat().st_mtime_ns for path in recorded}
    assert not (out / "index.json").exists()
    again = command("data=folder", *words)
    printed, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert f"data=shards data.root={out}" in printed
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert shards(out).split_sizes == {"train": 60, "val": 1}
    assert not list(out.glob("*.part"))


def test_what_is_lost_is_made_again_and_nothing_else(photos, tmp_path):
    made = make_shards(photos, tmp_path / "made", SMALL_SHARDS)
    before = content(made)
    times = {path: path.stat().st_mtime_ns for path in made.glob("*.tar")}
    lost, cut = made / "train-000001.tar", made / "val-000000.tar"
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-100])
    make_shards(photos, made, SMALL_SHARDS)
    assert content(made) == before
    changed = {path for path, mtime in times.items() if path.stat().st_mtime_ns != mtime}
    assert changed == {lost, cut}


def test_a_damaged_shard_is_found_in_verifying(photos, tmp_path):
    made = make_shards(photos, tmp_path / "made", SMALL_SHARDS)
    path = made / "train-000002.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(FoveaError, match=rf"{path} is not what was written"):
        make_shards(photos, made, SMALL_SHARDS)
    path.unlink()
    make_shards(photos, made, SMALL_SHARDS)
    assert shards(made).check() == []


@pytest.mark.parametrize(
    ("name", "new", "said"),
    [(r".*\.cls", b"7", "other labels"), (r".*\.jpg", None, "other images")],
)
def test_verifying_reads_labels_and_images(photos, tmp_path, name, new, said):
    made = make_shards(photos, tmp_path / "made", SMALL_SHARDS)
    path = made / "train-000002.tar"
    with tarfile.open(path) as archive:
        files = [(member.name, archive.extractfile(member).read()) for member in archive]
    first = next(i for i, (file, _) in enumerate(files) if re.fullmatch(name, file))
    if new is None:
        del files[first : first + 2]
    else:
        files[first] = (files[first][0], new)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for file, data in files:
            member = tarfile.TarInfo(file)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    record = made / ".prepare_shards" / "train-000002.tar.json"
    digest = list(shard_files.StoredFile.of(path))
    record.write_text(json.dumps({**json.loads(record.read_text()), "file": digest}))
    with pytest.raises(FoveaError, match=said):
        make_shards(photos, made, SMALL_SHARDS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["max_size=30"], "max_size: 20 there, 30 now"),
        (["quality=50"], "quality: None there, 50 now"),
        (["shard_mb=1"], "shard_mb: 0.006 there, 1.0 now"),
        (["data.limit_per_class=3"], "other images"),
    ],
)
def test_other_settings_into_the_same_folder_are_refused(photos, tmp_path, changed, said):
    made = make_shards(photos, tmp_path / "made", SMALL_SHARDS, "max_size=20")
    before = content(made)
    message = error_of(
        "data=folder", f"data.root={photos}", f"out={made}", SMALL_SHARDS, "max_size=20", *changed
    )
    assert said in message
    assert content(made) == before


def test_a_folder_with_something_else_is_refused(photos, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert "not empty" in error_of("data=folder", f"data.root={photos}", f"out={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_calls_at_once_are_refused(photos, tmp_path):
    made = make_shards(photos, tmp_path / "made")
    with shard_making.FileLock(made / ".prepare_shards" / "lock"):
        message = error_of("data=folder", f"data.root={photos}", f"out={made}")
    assert "Another process" in message


def test_a_full_disk_is_told_beforehand(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 10_000)
    )
    message = error_of("data=folder", f"data.root={photos}", f"out={tmp_path / 'made'}")
    assert "room" in message
    assert not list((tmp_path / "made").glob("*.tar"))


# Images that cannot be read.


BROKEN = ("train/cat/3.jpg", "val/dog/1.jpg")


@pytest.fixture
def broken(photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "broken")
    empty, cut = (root / name for name in BROKEN)
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-200])
    return root


def test_a_broken_image_stops_it_by_name(broken, tmp_path):
    words = ["data=folder", f"data.root={broken}", f"out={tmp_path / 'made'}", SMALL_SHARDS]
    message = error_of(*words)
    assert any(name in message for name in BROKEN)
    assert "data.on_bad_image=skip" in message


@pytest.mark.parametrize("extra", [[], ["max_size=20"]])
def test_broken_images_are_left_out_when_asked(broken, tmp_path, capsys, extra):
    made = make_shards(broken, tmp_path / "made", SMALL_SHARDS, "data.on_bad_image=skip", *extra)
    printed = capsys.readouterr().out
    assert "2 unreadable image(s) left out" in printed
    assert f"{broken}/train/cat/3.jpg: the file is empty" in printed
    assert f"{broken}/val/dog/1.jpg: " in printed
    data = shards(made)
    assert data.split_sizes == {"train": 17, "val": 7}
    assert data.class_counts("train") == [8, 9]
    for name in BROKEN:
        (broken / name).unlink()
    folder = FolderDataModule(str(broken))
    assert data.split_fingerprints() == folder.split_fingerprints()


def test_a_split_without_a_readable_image(tmp_path):
    photo(tmp_path / "photos" / "train" / "a" / "0.jpg", (9, 9))
    (tmp_path / "photos" / "val" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "val" / "a" / "0.jpg").write_bytes(b"")
    words = ["data=folder", f"data.root={tmp_path / 'photos'}", f"out={tmp_path / 'made'}"]
    assert "val split" in error_of(*words, "data.on_bad_image=skip")


# What can be mistyped.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["max_sise=400"], "Did you mean 'max_size'?"),
        (["max_size=big"], "max_size=big"),
        (["max_size=0"], "max_size=0"),
        (["quality=101", "max_size=9"], "quality=101"),
        (["quality=90"], "no effect"),
        (["shard_mb=-1"], "shard_mb=-1"),
        (["num_workers=many"], "num_workers=many"),
        (["data.rot=x"], "data.rot: no such key. Did you mean 'data.root'?"),
        (["optimizer.lr=1"], "no such key"),
        (["photos"], "'photos'"),
        (["data=foldr"], "Did you mean 'folder'?"),
    ],
)
def test_mistakes_are_named(photos, tmp_path, words, said):
    good = ["data=folder", f"data.root={photos}", f"out={tmp_path / 'made'}"]
    assert said in error_of(*good, *words)
    assert not (tmp_path / "made").exists()


def test_a_name_that_no_index_can_hold_is_told_beforehand(tmp_path):
    for split in ("train", "val"):
        folder = os.fsdecode(os.fsencode(tmp_path / "photos" / split) + b"/\xff")
        photo(Path(folder, "0.jpg"), (9, 9))
    message = error_of("data=folder", f"data.root={tmp_path / 'photos'}", f"out={tmp_path / 'o'}")
    assert "not UTF-8" in message


def test_where_to_must_be_said(photos):
    assert "out=" in error_of("data=folder", f"data.root={photos}")


@pytest.mark.slow
def test_the_command_explains_itself(tmp_path):
    process = command("--help", cwd=tmp_path)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert set(re.findall(r"^  (\w+)=", printed, flags=re.M)) - {"data"} == set(
        prepare_shards.Options.model_fields
    )
    nothing = command("data=folder", "data.root=nowhere", "out=made", cwd=tmp_path)
    _, said = nothing.communicate(timeout=60)
    assert nothing.returncode == 2
    assert "Traceback" not in said
    assert str(tmp_path / "nowhere") in said
    assert not (tmp_path / "made").exists()


# Several processes.


@pytest.mark.slow
def test_processes_make_what_one_makes(photos, broken, tmp_path, monkeypatch):
    one = make_shards(photos, tmp_path / "one", SMALL_SHARDS, "max_size=20", "num_workers=0")
    monkeypatch.setattr(shard_making, "FEW", 0)
    two = make_shards(photos, tmp_path / "two", SMALL_SHARDS, "max_size=20", "num_workers=2")
    assert tables(one) == tables(two)
    words = ["data=folder", f"data.root={broken}", f"out={tmp_path / 'three'}", SMALL_SHARDS]
    message = error_of(*words, "num_workers=2")
    assert any(name in message for name in BROKEN)


@pytest.mark.slow
def test_a_killed_process_is_an_error_not_a_hang(tmp_path):
    workshop = shard_files.Workshop(tmp_path, {}, shard_images.Form(None, None, 3), False)
    with (
        tqdm(disable=True) as bar,
        shard_crew.Crew(workshop, 2) as crew,
        pytest.raises(FoveaError, match="num_workers=1"),
    ):
        crew.run(os._exit, [9, 9], bar)
