import dataclasses
from functools import partial

import pytest
import torch
import yaml

from fovea.data import DigitsDataModule
from fovea.evaluation import Predictions


@pytest.fixture
def compare(script):
    return partial(script, "compare")


def make_run(folder, seed, lr, skill, fingerprint=None):
    data = DigitsDataModule()
    data.prepare()
    labels = data.dataset("test").labels
    n = len(labels)
    logits = torch.randn(n, 10, generator=torch.Generator().manual_seed(seed))
    logits[torch.arange(n), labels] += skill
    about = {"split": "test", "fingerprint": fingerprint or data.split_fingerprints()["test"]}
    names = tuple(data.class_names)
    found = Predictions(torch.arange(n), labels, logits, class_names=names, about=about)
    (folder / "predictions").mkdir(parents=True)
    found.save(folder / "predictions" / "test.npz")
    config = {"seed": seed, "run_id": folder.name, "optimizer": {"lr": lr},
              "data": {"_target_": "fovea.data.DigitsDataModule", "seed": seed}}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_it_prints_what_holds_and_writes_the_folder(compare, tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", seed, 0.1, 2)
        make_run(tmp_path / f"b{seed}", seed + 10, 0.2, 3.5)
    status, printed, _ = compare(tmp_path, "--out", tmp_path / "out", "--resamples", 200)
    assert status == 0
    assert "180 samples of 'test'" in printed
    assert "lr=0.2  2 runs" in printed
    assert "B is better (p" in printed
    # The images come from the data set that the runs' configuration names.
    assert {"compare.html", "compare.md", "compare.json", "compare.csv", "right_A_wrong_B.png",
            "right_B_wrong_A.png"} <= {p.name for p in (tmp_path / "out").iterdir()}  # fmt: skip


def test_bad_input_is_told_in_words(compare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "a", 0, 0.1, 2)
    other = make_run(tmp_path / "runs" / "b", 1, 0.2, 2, fingerprint="another")
    near = make_run(tmp_path / "runs" / "c", 1, 0.2, 2)
    for words, said in (
        ([run], "two runs or more"),
        ([run, tmp_path / "none"], "no such run folder"),
        ([run, other], "can't be compared with 'a'"),
        ([run, other / "config.yaml"], "is not a file of predictions"),
        ([run, run, "--split", "val"], "python src/eval.py"),
        (["--group-by", "optimizer.lr,model.nme", run, near], "--group-by model.nme: no run has"),
    ):
        status, _, complaint = compare(*words)
        assert status == 2
        assert complaint.startswith("error: ")
        assert said in complaint
    assert not (tmp_path / "outputs").exists()
    status, _, complaint = compare(run, near, "--split", "tset")
    assert status == 2
    assert "choose from" in complaint


def test_pictures_are_of_what_the_first_run_was_judged_on(compare, tmp_path):
    # Saved in another order, of the same images by their names.
    old, now = (
        make_run(tmp_path / "a", 0, 0.1, 2, fingerprint="then"),
        make_run(tmp_path / "b", 1, 0.2, 2),
    )
    for folder in (old, now):
        file = folder / "predictions" / "test.npz"
        found = Predictions.load(file)
        names = tuple(map(str, range(len(found))))
        dataclasses.replace(found, paths=names).save(file)
    words = ("--resamples", 100, "--out")
    status, printed, _ = compare(old, now, *words, tmp_path / "first")
    assert (status, "No pictures of the samples: the data set has other" in printed) == (0, True)
    status, printed, _ = compare("--group-by", "none", now, old, *words, tmp_path / "second")
    assert (status, "No pictures" in printed) == (0, False)
