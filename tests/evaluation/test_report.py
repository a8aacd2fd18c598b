import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from fovea.errors import FoveaError
from fovea.evaluation import Predictions, write_report
from fovea.evaluation.report import per_class_table, summarize


def predict(n: int = 300, k: int = 7) -> Predictions:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(k, (n,), generator=generator)
    labels[:100] = 2
    logits = torch.randn(n, k, generator=generator)
    logits[torch.arange(n), labels] += 1.5
    return Predictions(torch.arange(n) * 2, labels, logits)


def image(index: int) -> torch.Tensor:
    return torch.full((3, 16, 16), index % 255, dtype=torch.uint8)


def test_report_writes_what_it_says(tmp_path) -> None:
    predictions = predict()
    names = [f"name {i}" for i in range(7)]
    files = write_report(
        tmp_path / "report",
        predictions,
        names,
        image,
        lambda i: f"images/{i}.png" if i else "images/\udcff.png",
        metrics={"test/loss": 0.5, "test/top5": float("nan")},
    )
    assert {path.name for path in files.values()} == {
        "metrics.json", "per_class.csv", "predictions.csv", "confusion_matrix.png", "mistakes.png",
    }  # fmt: skip
    assert all(path.is_file() for path in files.values())
    scores = json.loads(files["metrics"].read_text())
    assert scores["test/loss"] == 0.5
    assert scores["test/top5"] is None
    assert scores["samples"] == 300
    rows = list(csv.DictReader(files["predictions"].open(encoding="utf-8")))
    assert len(rows) == 300
    assert rows[5]["path"] == "images/10.png"
    assert rows[5]["label"] == names[predictions.labels[5]]
    assert rows[5]["prediction"] == names[predictions.predicted[5]]
    assert float(rows[5]["probability"]) == pytest.approx(
        predictions.probabilities[5].max().item(), abs=1e-5
    )
    assert sum(row["correct"] == "True" for row in rows) == int(predictions.correct.sum())
    with Image.open(files["mistakes"]) as sheet:
        assert sheet.format == "PNG"


def test_summary_agrees_with_sklearn() -> None:
    predictions = predict()
    scores = summarize(predictions)
    y, p = predictions.labels.numpy(), predictions.logits.double().softmax(1).numpy()
    guess = p.argmax(1)
    assert scores["top1"] == pytest.approx(np.mean(y == guess))
    assert scores["top5"] == pytest.approx(top_k_accuracy_score(y, p, k=5))
    assert scores["nll"] == pytest.approx(log_loss(y, p), rel=1e-6)
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, guess))
    assert scores["macro_f1"] == pytest.approx(f1_score(y, guess, average="macro"))


def test_calibration_error_by_hand() -> None:
    sure = torch.tensor([[0.9, 0.1]]).log().repeat(10, 1)
    labels = torch.tensor([0] * 6 + [1] * 4)  # right six times of ten, at 90 % confidence
    scores = summarize(Predictions(torch.arange(10), labels, sure))
    assert scores["calibration_error"] == pytest.approx(0.3, abs=1e-6)
    assert "top5" not in scores


def test_per_class_table_agrees_with_sklearn_and_names_the_worst_confusion() -> None:
    predictions = predict()
    table = per_class_table(predictions, list("abcdefg"))
    y, guess = predictions.labels.numpy(), predictions.predicted.numpy()
    precision, recall, f1, support = precision_recall_fscore_support(y, guess)
    np.testing.assert_allclose(table["precision"], precision)
    np.testing.assert_allclose(table["recall"], recall)
    np.testing.assert_allclose(table["f1"], f1)
    assert table["samples"].tolist() == support.tolist()
    wrong = guess[(y == 2) & (guess != 2)]
    values, counts = np.unique(wrong, return_counts=True)
    assert table["confused"][2] == counts.max()
    assert table["most_confused_with"][2] == "abcdefg"[values[counts.argmax()]]


def test_absent_and_never_predicted_classes_are_empty_cells(tmp_path) -> None:
    found = Predictions(torch.arange(2), torch.tensor([0, 1]), torch.eye(4)[[0, 0]])
    table = per_class_table(found, list("abcd"))
    assert table["recall"].isna().tolist() == [False, False, True, True]
    assert table["precision"].isna().tolist() == [False, True, True, True]
    files = write_report(tmp_path, found, list("abcd"), image, str)
    assert json.loads(files["metrics"].read_text())["balanced_accuracy"] == 0.5


def test_a_network_that_diverged_still_gets_its_report(tmp_path) -> None:
    found = Predictions(torch.arange(4), torch.arange(4) % 3, torch.full((4, 3), torch.nan))
    files = write_report(tmp_path, found, list("abc"), image, str)
    scores = json.loads(files["metrics"].read_text())
    assert scores["top1"] == 0
    assert scores["nll"] is None


def test_nothing_to_report_is_an_error(tmp_path) -> None:
    none = Predictions(
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3)
    )
    with pytest.raises(FoveaError, match="nothing to report"):
        write_report(tmp_path, none, list("abc"), image, str)
