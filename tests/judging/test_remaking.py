"""Reports from files of predictions: whose val is used, which files become pictures."""

import dataclasses
import json
import os

import torch
from PIL import Image

from fovea.judging.remaking import load_val, remake
from made_predictions import made


def test_val_is_used_only_if_both_files_say_they_are_of_one_network(tmp_path):
    test = made(30, 3)
    for about, expected in [
        ({}, False),
        ({"views": "center"}, False),
        ({"weights": "abc"}, True),
        ({"members": ["a", "b"]}, True),
    ]:
        made(30, 3, seed=1).save(tmp_path / "val.npz")
        of = dataclasses.replace(test, about={"split": "test", **about})
        assert load_val(tmp_path / "test.npz", of) is None
        val = dataclasses.replace(made(30, 3, seed=1), about={"split": "val", **about})
        val.save(tmp_path / "val.npz")
        assert (load_val(tmp_path / "test.npz", of) is not None) == expected, about


def test_a_pipe_among_the_paths_is_not_waited_for_and_the_report_says_whence_pictures_are(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    paths = [str(tmp_path / name) for name in ("pipe", "a.png", "missing.png", "x" * 300)]
    predictions = dataclasses.replace(
        made(4, 2), paths=tuple(paths), about={"split": "test"}, labels=torch.tensor([0, 1, 0, 1])
    )
    predictions.save(tmp_path / "test.npz")
    remake(tmp_path / "test.npz", "test", tmp_path / "report", calibrate=True)
    assert (tmp_path / "report" / "mistakes.png").is_file()
    about = json.loads((tmp_path / "report" / "metrics.json").read_text())["about"]
    assert about["pictures"].endswith(f"in {tmp_path}")
    assert "of the files that the predictions name" in (
        tmp_path / "report" / "report.html"
    ).read_text(encoding="utf-8")
