"""``src/predict.py`` on files, folders, globs, and files that are no images."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from process import run


@pytest.fixture
def pictures(tmp_path):
    digits = load_digits()
    folder = tmp_path / "my pictures"
    (folder / "deep er").mkdir(parents=True)
    for i, name in enumerate(["a b.png", "it's, (1).png", "ünï😀.png", "deep er/x=y.png"]):
        Image.fromarray((digits.images[i] * 15.9).astype(np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_names_classes_of_every_file_and_goes_on_after_a_broken_one(trained, pictures, tmp_path):
    run_folder, _ = trained
    done = run("predict", f"ckpt={run_folder}", f"input={pictures}", "top_k=3", cwd=tmp_path)
    folder = folder_of_predict(tmp_path)
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(s) for s in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 5
    for row, line in zip(rows, lines, strict=True):
        assert row["path"] == line["path"]
        if row["path"].endswith("broken.png"):
            assert row["error"]
            assert not row["class_1"]
        else:
            probabilities = [float(row[f"probability_{i}"]) for i in (1, 2, 3)]
            assert probabilities == sorted(probabilities, reverse=True)
            assert sum(probabilities) <= 1 + 1e-6
            assert row["class_1"] in {str(d) for d in range(10)}
            assert line["classes"][0]["class"] == row["class_1"]
    assert "1 of 5 files" in done.stdout
    assert "ünï😀.png" in done.stdout


def folder_of_predict(cwd):
    (folder,) = (cwd / "outputs").glob("predict_*")
    return folder


@pytest.mark.parametrize("form", ["glob", "bare", "list"])
def test_globs_bare_names_and_lists(trained, pictures, tmp_path, form):
    run_folder, _ = trained
    words = {
        "glob": [f"input={pictures}/*'s*.png"],
        "bare": [f"{pictures}/it's, (1).png"],
        "list": ["input=['my pictures/a b.png','my pictures/a b.png']"],
    }[form]
    run("predict", f"ckpt={run_folder}", *words, cwd=tmp_path)
    assert len((folder_of_predict(tmp_path) / "predictions.jsonl").read_text().splitlines()) == 1


def test_the_same_probabilities_as_from_python(trained, pictures, tmp_path):
    import fovea

    run_folder, _ = trained
    path = pictures / "a b.png"
    (((name, probability), *_),) = fovea.load(run_folder).predict([path])
    run("predict", f"ckpt={run_folder}", str(path), cwd=tmp_path)
    line = json.loads((folder_of_predict(tmp_path) / "predictions.jsonl").read_text())
    assert line["classes"][0]["class"] == name
    assert line["classes"][0]["probability"] == pytest.approx(probability, abs=1e-5)


def test_nothing_found_says_where_it_looked(trained, pictures, tmp_path):
    run_folder, _ = trained
    done = run("predict", f"ckpt={run_folder}", "input=my picture", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "Did you mean 'my pictures'?" in done.stderr
