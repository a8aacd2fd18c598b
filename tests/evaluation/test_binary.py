import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_precision_recall_curve,
    binary_roc,
    binary_sensitivity_at_specificity,
)

from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.auroc import one_vs_rest_auroc
from fovea.evaluation.binary import (
    at_threshold,
    average_precision,
    choose_threshold,
    precision_recall_curve,
    roc_curve,
    sensitivity_at_specificity,
)
from fovea.evaluation.intervals import wilson
from made_predictions import made, take


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("positive", [0, 1])
def test_curves_agree_with_torchmetrics(ties, positive):
    predictions = made(400, 2, ties=ties)
    scores = predictions.logits.double().softmax(1)[:, positive]
    truth = (predictions.labels == positive).long()
    curve = roc_curve(predictions, positive)
    fpr, tpr, thresholds = binary_roc(scores, truth)
    np.testing.assert_allclose(curve["fpr"], fpr, atol=1e-6)
    np.testing.assert_allclose(curve["tpr"], tpr, atol=1e-6)
    np.testing.assert_allclose(curve["threshold"][1:], thresholds[1:])
    assert curve["threshold"][0] == np.inf
    area = np.trapezoid(curve["tpr"], curve["fpr"])
    assert one_vs_rest_auroc(predictions)[positive] == pytest.approx(area)
    curve = precision_recall_curve(predictions, positive)
    precision, recall, thresholds = binary_precision_recall_curve(scores, truth)
    np.testing.assert_allclose(curve["precision"], precision[:-1], atol=1e-6)
    np.testing.assert_allclose(curve["recall"], recall[:-1], atol=1e-6)
    np.testing.assert_allclose(curve["threshold"], thresholds)
    expected = binary_average_precision(scores, truth).item()
    assert average_precision(predictions, positive) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95])
def test_sensitivity_at_specificity_agrees_with_torchmetrics(ties, specificity):
    predictions = made(300, 2, ties=ties, strength=1.5)
    share, threshold = sensitivity_at_specificity(predictions, specificity, resamples=200)
    scores = predictions.logits.double().softmax(1)[:, 1]
    expected, _ = binary_sensitivity_at_specificity(scores, predictions.labels, specificity)
    assert share.value == pytest.approx(expected.item(), abs=1e-6)
    found = at_threshold(predictions, threshold)
    assert found["specificity"].value >= specificity
    assert found["sensitivity"].value == share.value == share.hits / share.n
    assert share.low < share.value < share.high
    # No threshold beside it does better.
    for other in scores[scores < threshold].tolist():
        assert at_threshold(predictions, other)["specificity"].value < specificity or (
            at_threshold(predictions, other)["sensitivity"].value == share.value
        )


def test_its_bounds_are_those_of_every_resample():
    predictions = made(120, 2, strength=1.0)
    share, _ = sensitivity_at_specificity(predictions, 0.9, seed=3, resamples=50)
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(50):
        again = take(predictions, rng.integers(120, size=120))
        threshold = choose_threshold(again, "specificity", 0.9)
        drawn.append(at_threshold(again, threshold)["sensitivity"].value)
    expected = np.quantile(drawn, [0.025, 0.975]) - np.mean(drawn) + share.value
    assert (share.low, share.high) == pytest.approx(tuple(expected))


def test_what_a_threshold_gives_agrees_with_sklearn():
    predictions = made(250, 2, ties=True)
    scores = predictions.logits.double().softmax(1)[:, 1].numpy()
    threshold = float(np.unique(scores)[3])  # one that samples lie on
    (tn, fp), (fn, tp) = confusion_matrix(predictions.labels, scores >= threshold)
    found = at_threshold(predictions, threshold)
    expected = {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
        "accuracy": (tp + tn, 250),
    }
    assert {name: (share.hits, share.n) for name, share in found.items()} == expected
    for share in found.values():
        assert share.value == pytest.approx(share.hits / share.n)
        assert (share.low, share.high) == wilson(share.hits, share.n)
    nothing = at_threshold(predictions, 2.0)
    assert nothing["sensitivity"].value == 0
    assert np.isnan([nothing["ppv"].value, nothing["ppv"].low]).all()


def of(probabilities: list[float], labels: list[int]) -> Predictions:
    p = torch.tensor(probabilities, dtype=torch.float64)
    logits = torch.stack([torch.zeros_like(p), (p / (1 - p)).log()], dim=1).float()
    return Predictions(torch.arange(len(p)), torch.tensor(labels), logits)


def test_rules_by_hand():
    val = of([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], [0, 0, 1, 0, 0, 1, 1, 1])
    assert choose_threshold(val) == pytest.approx(0.7)
    assert choose_threshold(val, "sensitivity", 1.0) == pytest.approx(0.3)
    assert choose_threshold(val, "sensitivity", 0.75) == pytest.approx(0.7)
    assert choose_threshold(val, "specificity", 0.75) == pytest.approx(0.7)
    assert choose_threshold(val, "specificity", 0.5) == pytest.approx(0.3)
    assert choose_threshold(val, "specificity", 0.0) == pytest.approx(0.3)
    hopeless = of([0.9, 0.5], [0, 1])
    assert choose_threshold(hopeless, "specificity", 0.9) == np.inf
    assert at_threshold(hopeless, np.inf)["specificity"].value == 1
    for useless in (hopeless, of([0.5] * 4, [0, 1, 0, 1])):
        with pytest.raises(FoveaError, match="No threshold is better than guessing"):
            choose_threshold(useless)
    test = of([0.6, 0.65, 0.75], [0, 1, 1])
    assert at_threshold(test, choose_threshold(val))["sensitivity"].value == 0.5


def test_what_is_no_question_of_two_classes_is_told():
    with pytest.raises(FoveaError, match="two classes; there are 3"):
        roc_curve(made(20, 3))
    for label, missing in ((0, "ill"), (1, "healthy")):
        labels = torch.full((2,), label)
        found = Predictions(torch.arange(2), labels, torch.eye(2), class_names=("healthy", "ill"))
        for function in (roc_curve, average_precision, choose_threshold):
            with pytest.raises(FoveaError, match=f"no sample of the class '{missing}'"):
                function(found)
