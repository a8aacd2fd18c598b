"""The comparison of the speedrun recipe with the plain script, on a few images of noise."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from process import ROOT, environment


@pytest.mark.slow
def test_both_sides_train_by_turns_and_are_compared(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 2)):
        for label in range(10):
            folder = tmp_path / split / str(label)
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (32, 32, 3)) + 13 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    small = ["--width", "0.125", "--batch-size", "32", "--epochs", "1.5", "--seeds", "2"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/benchmark_speedrun.py"), "--root", tmp_path, *small],
        env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("198 training images, 20 test images; widths [8, 32, 32]; 9 steps")
    turns = [line.split("  ")[1].strip() for line in lines if line.startswith("seed")]
    assert turns == ["plain script", "fovea", "fovea", "plain script"]
    assert sum(line.startswith("| ") for line in lines) == 4
    assert "fovea / plain script, cpu time of an epoch: median" in done.stdout


def test_wrong_options_are_told(script, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    status, _, err = script("benchmark_speedrun", "--root", tmp_path, "--images", "100")
    assert status == 2
    assert "less than a batch of 1024" in err
    if not torch.cuda.is_available():
        status, _, err = script("benchmark_speedrun", "--root", tmp_path, "--device", "cuda")
        assert status == 2
        assert "there is no GPU" in err
