import subprocess
import sys
from pathlib import Path

import pandas as pd
from PIL import Image, ImageOps

from photo import photo
from process import environment

SCRIPT = Path(__file__).parents[2] / "scripts" / "find_duplicates.py"


def find(*words, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        cwd=cwd, capture_output=True, text=True, timeout=300, env=environment(FOVEA_CACHE=""),
    )  # fmt: skip


def test_what_is_there_twice_is_listed_and_shown(tmp_path):
    for split, seeds in (("train", range(10)), ("val", range(20, 24)), ("test", range(30, 36))):
        for seed in seeds:
            save(photo(90, 120, seed), tmp_path / "photos" / split / "ab"[seed % 2] / f"{seed}.png")
    twin = ImageOps.mirror(photo(90, 120, 4)).resize((100, 100))
    save(twin, tmp_path / "photos" / "test" / "b" / "mirrored.jpg")  # its twin is an "a"
    save(photo(90, 120, 7), tmp_path / "photos" / "train" / "b" / "again.webp")
    words = ("data=folder", "data.root=photos", "--within", "--out", "found")
    done = find(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "val: 0 of 4 images (0.00%) have a near-duplicate in train" in done.stdout
    assert "test: 1 of 7 images" in done.stdout
    assert "near-duplicate in train; 1 mirrored; 1 under another label" in done.stdout
    assert "train: 1 of 11 images (9.09%) have a near-duplicate before them" in done.stdout
    table = pd.read_csv(tmp_path / "found" / "duplicates.csv")
    pairs = [{Path(a).name, Path(b).name} for a, b in zip(table.path, table.twin_path, strict=True)]
    assert pairs == [{"mirrored.jpg", "4.png"}, {"again.webp", "7.png"}]
    assert table.mirrored.tolist() == [True, False]
    assert table[["split", "twin_split"]].values.tolist() == [["test", "train"], ["train", "train"]]
    assert Image.open(tmp_path / "found" / "duplicates.png").width > 400

    done = find("data.root=photos", "model=resnet18", cwd=tmp_path)
    assert done.returncode == 2
    assert "'model=resnet18' is no part of a data set" in done.stderr


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
