import itertools

import numpy as np
import pytest
import torch

from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.evaluation.selective import (
    accuracy_at_coverage,
    aurc,
    coverage_at_accuracy,
    coverage_curve,
    excess_aurc,
    least_sure_hits,
    worst_mistakes,
)
from made_predictions import made


def of(logits: list[float], right: list[int]) -> Predictions:
    """Return samples of two classes: the larger the logit, the surer."""
    rows = torch.tensor(logits)[:, None] * torch.tensor([1.0, 0.0])
    return Predictions(torch.arange(len(right)), 1 - torch.tensor(right), rows)


def test_curve_by_hand():
    curve = coverage_curve(of([1, 5, 3, 3, 2], [0, 1, 0, 1, 1]))
    assert curve["coverage"].tolist() == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert curve["accuracy"].tolist() == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])
    expected = 1 / (1 + np.exp(-np.array([5.0, 3, 2, 1])))
    assert curve["threshold"].tolist() == pytest.approx(expected.tolist())


def test_aurc_is_the_mean_over_all_orders_of_equal_samples():
    logits, right = [4, 3, 3, 3, 2, 2, 1], [1, 1, 0, 0, 1, 0, 1]
    risks = []
    for order in itertools.permutations(range(7)):
        if all(logits[a] >= logits[b] for a, b in itertools.pairwise(order)):
            wrong = np.cumsum([1 - right[row] for row in order])
            risks.append(np.mean(wrong / np.arange(1, 8)))
    assert len(risks) == 12
    assert aurc(of(logits, right)) == pytest.approx(np.mean(risks))


@pytest.mark.parametrize("k", [2, 10, 100])
def test_aurc_agrees_with_a_loop_and_excess_with_the_papers_limit(k):
    predictions = made(3000, k)
    confidence = predictions.logits.double().softmax(1).amax(1)
    correct = (predictions.logits.argmax(1) == predictions.labels).double()
    risks = [
        1 - correct[confidence >= threshold].mean().item() for threshold in confidence.tolist()
    ]
    assert aurc(predictions) == pytest.approx(np.mean(risks))
    r = 1 - correct.mean().item()
    limit = r + (1 - r) * np.log(1 - r)
    assert aurc(predictions) - excess_aurc(predictions) == pytest.approx(limit, abs=5e-4)


def test_a_network_that_knows_its_mistakes_has_no_excess():
    perfect = of([5, 4, 3, 2, 1], [1, 1, 1, 0, 0])
    assert excess_aurc(perfect) == pytest.approx(0, abs=1e-15)
    assert aurc(perfect) == pytest.approx((1 / 4 + 2 / 5) / 5)
    assert excess_aurc(of([5, 4, 3, 2, 1], [0, 0, 1, 1, 1])) > 0.4
    assert aurc(of([1, 2], [1, 1])) == excess_aurc(of([1, 2], [1, 1])) == 0
    assert aurc(of([1, 2], [0, 0])) == 1
    assert excess_aurc(of([1, 2], [0, 0])) == 0


def test_accuracy_at_a_coverage_and_coverage_at_an_accuracy():
    found = of(list(range(20, 0, -1)), [1] * 18 + [0, 1])
    assert accuracy_at_coverage(found, 0.9) == 1
    assert accuracy_at_coverage(found, 0.95) == pytest.approx(18 / 19)
    assert accuracy_at_coverage(found, 0.901) == pytest.approx(18 / 19)
    assert accuracy_at_coverage(found, 1.0) == pytest.approx(0.95)
    assert coverage_at_accuracy(found, 0.99) == pytest.approx(0.9)
    assert coverage_at_accuracy(found, 0.95) == 1
    assert coverage_at_accuracy(of([2, 1], [0, 0]), 0.5) == 0
    tied = of([1, 1, 1, 1], [1, 0, 1, 0])
    assert accuracy_at_coverage(tied, 0.5) == pytest.approx(0.5)


def test_worst_mistakes_and_least_sure_hits_are_ordered_rows():
    # So sure that float32 gives all of them the probability 1.
    found = of([30, 31, 32, 33, 5, 6], [0, 0, 1, 1, 1, 0])
    assert worst_mistakes(found, 9).tolist() == [1, 0, 5]
    assert worst_mistakes(found, 2).tolist() == [1, 0]
    assert least_sure_hits(found, 9).tolist() == [4, 2, 3]
    assert least_sure_hits(of([1, 1, 1], [1, 1, 1]), 2).tolist() == [0, 1]
    assert len(least_sure_hits(of([1], [0]), 5)) == 0


def test_a_row_without_probabilities_is_the_least_sure():
    found = of([3, float("nan"), 1], [1, 1, 1])
    curve = coverage_curve(found)
    assert curve["accuracy"].tolist() == pytest.approx([1, 1, 2 / 3])
    assert curve["threshold"].tolist()[-1] == 0
    assert aurc(found) == pytest.approx(1 / 9)
    assert len(worst_mistakes(found, 5)) == 0
    assert least_sure_hits(found, 5).tolist() == [2, 0]


def test_no_sample_is_told():
    none = Predictions(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 2))
    with pytest.raises(FoveaError, match="no predictions"):
        coverage_curve(none)
