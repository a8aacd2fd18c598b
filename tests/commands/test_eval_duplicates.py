import numpy as np
import pandas as pd
import pytest

from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.experiment import build_data
from fovea.inference import read_checkpoint
from fovea.judging.candidates import Candidate
from fovea.judging.duplicates import training_images
from process import folder_of, run


def test_test_images_that_are_in_train_are_told_listed_and_shown(trained, tmp_path):
    words = (f"ckpt={trained[0]}", "split=test", "duplicates=true", "cost=false")
    done = run("eval", *words, "calibrate=false", cwd=tmp_path)
    folder = folder_of(done, tmp_path)
    table = pd.read_csv(folder / "duplicates.csv")
    # Handwritten digits of 8 x 8 pixels do resemble each other.
    assert len(table) > 0
    assert (folder / "duplicates.png").is_file()
    predictions = Predictions.load(folder / "predictions" / "test.npz")
    assert predictions.about["duplicates"] == len(table)
    twice = np.isin(predictions.paths, table.path)
    assert twice.sum() == len(table)
    correct = predictions.correct.numpy()
    without = correct[~twice].mean()
    metrics = predictions.about["metrics"]
    assert metrics["test/top1_without_duplicates"] == pytest.approx(without)
    sentence = (
        f"{len(table)} of {len(correct)} test images have a near-duplicate in train; without them "
        f"top-1 is {100 * without:.2f} % instead of {100 * correct.mean():.2f} %."
    )
    assert sentence in done.stdout + done.stderr
    assert sentence in (folder / "report.html").read_text()
    assert f"{without:.6f}" in done.stdout


def test_what_can_not_be_compared_is_refused(trained, tmp_path):
    checkpoint = read_checkpoint(trained[0])
    data = build_data(checkpoint.config)
    config = checkpoint.config.copy()
    config.split = "train"
    with pytest.raises(FoveaError, match="split=test"):
        training_images(Candidate(config, data, task=None, rows=[], reference=str(trained[0])))
    config.split = "test"
    del data.splits["train"]
    with pytest.raises(FoveaError, match="has none"):
        training_images(Candidate(config, data, task=None, rows=[], reference=None))
