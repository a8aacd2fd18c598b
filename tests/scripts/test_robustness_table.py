"""``scripts/robustness_table.py``: models by test sets, out of the reports of evaluations."""

import json
from functools import partial

import pandas as pd
import pytest


@pytest.fixture
def table(script):
    return partial(script, "robustness_table")


def leave(folder, model, data, top1, split="test", fingerprint="f", **scores):
    folder.mkdir(parents=True)
    about = {"run": model, "ckpt": None, "data": data, "split": split, "fingerprint": fingerprint}
    numbers = {f"{split}/{name}": value for name, value in scores.items()}
    (folder / "metrics.json").write_text(json.dumps({"top1": top1, "about": about, **numbers}))


def test_models_by_test_sets(tmp_path, table):
    outputs = tmp_path / "outputs"
    leave(outputs / "1", "a", "ImageNet in /data/in", 0.8, "val", mce=0.7)
    leave(outputs / "2" / "a", "a", "ImageNet-V2 in /data/v2", 0.7)  # of several models
    leave(outputs / "2" / "b", "b", "ImageNet-V2 in /data/v2", 0.6, fingerprint="other")
    leave(outputs / "3", "b", "ImageNet-C in /c: fog, severity 1", 0.99, mce=0.5)
    leave(outputs / "4", "a", "CIFAR-10-C in /c: fog, severity 3", 0.4)
    (outputs / "5").mkdir()
    (outputs / "5" / "metrics.json").write_text("{")
    status, out, _ = table(outputs, "--csv", tmp_path / "t.csv")
    found = pd.read_csv(tmp_path / "t.csv", index_col="model")
    assert status == 0
    assert found.loc["a"].dropna().to_dict() == {
        "ImageNet val": 0.8, "ImageNet val mCE": 0.7, "ImageNet-V2": 0.7,
        "CIFAR-10-C fog, severity 3": 0.4,
    }  # fmt: skip
    # What a page on all versions says of the first of them is not the test set's score.
    assert found.loc["b"].dropna().to_dict() == {"ImageNet-V2": 0.6, "ImageNet-C mCE": 0.5}
    assert "80.00%" in out
    assert "'ImageNet-V2' is of different images" in out


def test_nothing_to_show(tmp_path, table):
    status, _, said = table(tmp_path)
    assert status == 2
    assert "There is no evaluation in" in said
