import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.imagenet as reference
from scipy.io import savemat
from torchvision.datasets import ImageFolder

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_imagenet.py"
# In an order of ILSVRC2012_ID that is not that of the wnids, as in the real devkit.
WNIDS = ["n02119789", "n01440764", "n02100735"]
TRAIN, VAL = 4, 6
EXPECT = ["--expect", str(TRAIN * len(WNIDS)), str(VAL), str(len(WNIDS))]
TRUTH = [2, 1, 3, 3, 2, 1]  # ILSVRC2012_ID of each val image


def prepare(*words, env=None):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})},
    )  # fmt: skip


def image_bytes(name):
    return f"stands for the JPEG {name}".encode()


def add(tar, name, content=None, kind=tarfile.REGTYPE, link=""):
    content = image_bytes(name) if content is None else content
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    tar.addfile(info, io.BytesIO(content))


def archive_of(names, mode="w", **odd):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name in names:
            add(tar, name)
        if odd:
            add(tar, **odd)
    return buffer.getvalue()


def train_names(wnid):
    return [f"{wnid}_{number}.JPEG" for number in range(1, TRAIN + 1)]


def val_names():
    return [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, VAL + 1)]


def devkit():
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children"]
    synsets = np.empty(len(WNIDS) + 1, dtype=[(field, object) for field in fields])
    for i, wnid in enumerate(WNIDS):
        synsets[i] = (i + 1, wnid, f"words {i}", "gloss", 0)
    synsets[-1] = (len(WNIDS) + 1, "n00001740", "entity", "gloss", 3)  # an inner node
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        truth = "".join(f"{number}\n" for number in TRUTH).encode()
        name = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
        add(tar, name, truth)
    return buffer.getvalue()


@pytest.fixture
def archives(tmp_path):
    """A folder with small archives of the official names and structure."""
    folder = tmp_path / "archives"
    folder.mkdir()
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as tar:
        for wnid in WNIDS:
            add(tar, f"{wnid}.tar", archive_of(train_names(wnid)))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(archive_of(val_names()))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit())
    return folder


def kaggle(folder):
    data = folder / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in WNIDS:
        (data / "train" / wnid).mkdir(parents=True)
        for name in train_names(wnid):
            (data / "train" / wnid / name).write_bytes(image_bytes(name))
    (data / "val").mkdir()
    lines = ["ImageId,PredictionString"]
    for name, number in zip(val_names(), TRUTH, strict=True):
        (data / "val" / name).write_bytes(image_bytes(name))
        lines.append(f"{name[:-5]},{WNIDS[number - 1]} 12 30 400 333 ")
    (folder / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    return folder


def tree(folder):
    """All visible files below ``folder``: content by relative path."""
    files = (file for file in Path(folder).rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if not f.name.startswith(".")}


EXPECTED = {
    **{f"train/{w}/{name}": image_bytes(name) for w in WNIDS for name in train_names(w)},
    **{
        f"val/{WNIDS[number - 1]}/{name}": image_bytes(name)
        for name, number in zip(val_names(), TRUTH, strict=True)
    },
}


def test_archives_become_the_tree_that_torchvision_makes(archives, tmp_path, monkeypatch):
    done = prepare(archives, tmp_path / "out", "--no-md5", *EXPECT)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == EXPECTED
    assert "12 images in 3 classes" in done.stdout
    assert f"data=imagenet data.root={tmp_path / 'out'}" in done.stdout

    monkeypatch.setattr(reference, "_verify_archive", lambda *_: None)
    monkeypatch.setattr(
        reference,
        "ARCHIVE_META",
        {key: (name, "") for key, (name, _) in reference.ARCHIVE_META.items()},
    )
    reference.parse_devkit_archive(archives)
    reference.parse_val_archive(archives)
    reference.parse_train_archive(archives)
    for split in ("train", "val"):
        assert tree(archives / split) == tree(tmp_path / "out" / split)
    folder = ImageFolder(tmp_path / "out" / "val")
    assert folder.classes == sorted(WNIDS)
    assert len(folder) == VAL


def test_the_published_md5_is_asked_for(archives, tmp_path):
    done = prepare(archives, tmp_path / "out", *EXPECT)
    assert done.returncode == 2
    assert reference.ARCHIVE_META["train"][1] in done.stderr
    assert "--no-md5" in done.stderr
    assert tree(tmp_path / "out") == {}


def test_goes_on_after_a_cut_and_does_not_write_twice(archives, tmp_path):
    out, train = tmp_path / "out", archives / "ILSVRC2012_img_train.tar"
    whole = train.read_bytes()
    train.write_bytes(whole[: len(whole) * 2 // 3])
    cut = prepare(archives, out, "--no-md5", *EXPECT)
    assert cut.returncode == 2
    assert "cut off" in cut.stderr
    assert "Traceback" not in cut.stderr
    # A call that was killed in the middle of a file leaves a part of it behind.
    first = out / "train" / WNIDS[0] / train_names(WNIDS[0])[0]
    first.parent.mkdir(parents=True, exist_ok=True)
    first.with_name(train_names(WNIDS[0])[1] + ".part").write_bytes(b"half")
    first.write_bytes(image_bytes(first.name))
    os.utime(first, (1, 1))

    train.write_bytes(whole)
    assert prepare(archives, out, "--no-md5", *EXPECT).returncode == 0
    assert tree(out) == EXPECTED
    assert first.stat().st_mtime == 1  # what was there stayed

    times = {f: f.stat().st_mtime_ns for f in out.rglob("*.JPEG")}
    again = prepare(archives, out, "--no-md5", *EXPECT)
    assert again.returncode == 0
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*.JPEG")} == times


def test_a_deleted_class_is_made_again(archives, tmp_path):
    out = tmp_path / "out"
    assert prepare(archives, out, "--no-md5", *EXPECT).returncode == 0
    (out / "train" / WNIDS[1] / train_names(WNIDS[1])[2]).unlink()
    assert prepare(archives, out, "--no-md5", *EXPECT).returncode == 0
    assert tree(out) == EXPECTED


def test_another_file_in_the_way_is_not_overwritten(archives, tmp_path):
    other = tmp_path / "out" / "train" / WNIDS[0] / train_names(WNIDS[0])[1]
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    done = prepare(archives, tmp_path / "out", "--no-md5", *EXPECT)
    assert done.returncode == 2
    assert str(other) in done.stderr
    assert "not overwritten" in done.stderr
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "odd",
    [
        {"name": "../../evil.JPEG", "content": b"x"},
        {"name": "/tmp/fovea_evil.JPEG", "content": b"x"},
        {"name": "sub/evil.JPEG", "content": b"x"},
        {"name": "evil.JPEG", "content": b"", "kind": tarfile.SYMTYPE, "link": "/etc/passwd"},
        {"name": "evil.JPEG", "content": b"", "kind": tarfile.LNKTYPE, "link": "../x"},
        {"name": "evil.JPEG", "content": b"", "kind": tarfile.FIFOTYPE},
        {"name": "evil.sh", "content": b"x"},
    ],
)
def test_members_that_leave_the_folder_are_refused(archives, tmp_path, odd):
    where = "val" if odd.get("kind") else "train"
    if where == "train":
        with tarfile.open(archives / "ILSVRC2012_img_train.tar", "w") as tar:
            add(tar, f"{WNIDS[0]}.tar", archive_of(train_names(WNIDS[0]), **odd))
    else:
        (archives / "ILSVRC2012_img_val.tar").write_bytes(archive_of(val_names(), **odd))
    done = prepare(archives, tmp_path / "a" / "b" / "out", "--no-md5", "--splits", where, *EXPECT)
    assert done.returncode == 2
    assert "refused" in done.stderr
    assert not [file for file in tmp_path.rglob("*evil*") if file.is_file()]
    assert not Path("/tmp/fovea_evil.JPEG").exists()


def test_outer_members_that_leave_the_folder_are_refused(archives, tmp_path):
    with tarfile.open(archives / "ILSVRC2012_img_train.tar", "w") as tar:
        add(tar, "../n01440764.tar", archive_of(train_names(WNIDS[0])))
    done = prepare(archives, tmp_path / "out", "--no-md5", *EXPECT)
    assert done.returncode == 2
    assert "refused" in done.stderr


def test_counts_are_checked(archives, tmp_path):
    done = prepare(archives, tmp_path / "out", "--no-md5")
    assert done.returncode == 2
    assert "1,281,167" in done.stderr
    assert "50,000" in done.stderr


def test_without_the_devkit_the_val_images_are_not_guessed(archives, tmp_path):
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    done = prepare(archives, tmp_path / "out", "--no-md5", *EXPECT)
    assert done.returncode == 2
    assert "ILSVRC2012_devkit_t12.tar.gz" in done.stderr
    assert tree(tmp_path) == tree(tmp_path)  # nothing was made
    assert not (tmp_path / "out").exists()
    only_train = prepare(archives, tmp_path / "out", "--no-md5", "--splits", "train", *EXPECT)
    assert only_train.returncode == 0, only_train.stderr


def test_missing_archives_are_named(tmp_path):
    done = prepare(tmp_path, tmp_path / "out", *EXPECT)
    assert done.returncode == 2
    assert "ILSVRC2012_img_train.tar" in done.stderr
    assert str(tmp_path) in done.stderr
    assert prepare(tmp_path / "nowhere", tmp_path / "out").returncode == 2


@pytest.mark.parametrize(
    ("below", "by"),
    [("", "hardlink"), ("ILSVRC", "symlink"), ("ILSVRC/Data/CLS-LOC", "copy"), ("", "move")],
)
def test_kaggle_layout(tmp_path, below, by):
    source = kaggle(tmp_path / "kaggle")
    done = prepare(source / below, tmp_path / "out", "--by", by, *EXPECT)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == EXPECTED
    file = tmp_path / "out" / "train" / WNIDS[0] / train_names(WNIDS[0])[0]
    assert file.is_symlink() == (by == "symlink")
    assert (file.stat().st_nlink == 2) == (by == "hardlink")
    left = source / "ILSVRC" / "Data" / "CLS-LOC" / "train" / WNIDS[0] / file.name
    assert left.exists() == (by != "move")


def test_kaggle_layout_is_sorted_in_place(tmp_path):
    data = kaggle(tmp_path) / "ILSVRC" / "Data" / "CLS-LOC"
    done = prepare(tmp_path, data, "--by", "move", *EXPECT)
    assert done.returncode == 0, done.stderr
    assert tree(data) == EXPECTED


def test_a_csv_cannot_lead_out_of_the_folder(tmp_path):
    source = kaggle(tmp_path / "kaggle")
    table = source / "LOC_val_solution.csv"
    table.write_text(table.read_text().replace(WNIDS[1], "../../../evil"))
    done = prepare(source, tmp_path / "out", *EXPECT)
    assert done.returncode == 2
    assert "evil" in done.stderr
    assert not list(tmp_path.rglob("*evil*"))


def test_a_sorted_folder_is_accepted(archives, tmp_path):
    prepare(archives, tmp_path / "sorted", "--no-md5", *EXPECT)
    done = prepare(tmp_path / "sorted", tmp_path / "out", *EXPECT)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == EXPECTED
    in_place = prepare(tmp_path / "sorted", tmp_path / "sorted", *EXPECT)
    assert in_place.returncode == 0, in_place.stderr
    assert tree(tmp_path / "sorted") == EXPECTED


def test_a_flat_val_folder_is_sorted_by_the_devkit(archives, tmp_path):
    (archives / "ILSVRC2012_img_val.tar").unlink()
    (archives / "val").mkdir()
    for name in val_names():
        (archives / "val" / name).write_bytes(image_bytes(name))
    done = prepare(archives, tmp_path / "out", "--no-md5", *EXPECT)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == EXPECTED


@pytest.mark.slow
def test_lists_the_classes_in_the_order_everyone_uses():
    done = prepare("--list-classes", env={"PYTHONPATH": str(SCRIPT.parents[1] / "src")})
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 1000
    assert lines[0] == ["0", "n01440764", "tench"]
    assert lines[999] == ["999", "n15075141", "toilet tissue"]
    assert lines[134][2] == "crane bird"
    assert lines[517][2] == "crane"
