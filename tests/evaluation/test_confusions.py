import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from fovea.evaluation import Predictions
from fovea.evaluation.confusions import count_confusions, similarity_order, worst_pairs
from made_predictions import made


@pytest.mark.parametrize("k", [2, 10, 100])
def test_counts_agree_with_sklearn(k):
    predictions = made(600, k, ties=True)
    guess = predictions.logits.numpy().argmax(1)
    expected = confusion_matrix(predictions.labels, guess, labels=range(k))
    np.testing.assert_array_equal(count_confusions(predictions), expected)


def test_rows_without_probabilities_are_in_no_cell():
    logits = torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [1.0, 0.0]])
    found = Predictions(torch.arange(3), torch.zeros(3).long(), logits)
    assert count_confusions(found).tolist() == [[1, 0], [0, 0]]


def test_worst_pairs_by_hand():
    labels = torch.tensor([0] * 5 + [1] * 4 + [2] * 10)
    guess = torch.tensor([1, 1, 1, 0, 0] + [0, 1, 1, 1] + [2] * 8 + [1, 1])
    found = Predictions(
        torch.arange(19), labels, torch.eye(3)[guess], class_names=("cat", "lynx", "dog")
    )
    table = worst_pairs(found)
    assert table.to_dict("records") == [
        {"true": "cat", "predicted": "lynx", "count": 3, "share": 0.6, "reverse": 1},
        {"true": "dog", "predicted": "lynx", "count": 2, "share": 0.2, "reverse": 0},
        {"true": "lynx", "predicted": "cat", "count": 1, "share": 0.25, "reverse": 3},
    ]
    assert len(worst_pairs(found, 2)) == 2
    right = Predictions(torch.arange(3), torch.arange(3), torch.eye(3))
    assert worst_pairs(right).empty
    assert list(worst_pairs(right)) == list(table)


def test_order_puts_planted_groups_side_by_side():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(12), 5))
    same = groups[:, None] == groups
    counts = np.where(same, rng.integers(5, 15, size=(60, 60)), rng.integers(0, 2, size=(60, 60)))
    np.fill_diagonal(counts, 100)
    order = similarity_order(counts)
    assert sorted(order) == list(range(60))
    assert np.count_nonzero(np.diff(groups[order])) == 11


def test_order_without_confusions_stays():
    assert similarity_order(np.diag([3, 0, 5, 1])).tolist() == [0, 1, 2, 3]
    assert similarity_order(np.array([[1, 4], [2, 0]])).tolist() == [0, 1]
    assert similarity_order(np.array([[1]])).tolist() == [0]


def test_order_puts_rare_classes_where_they_are_taken_for():
    counts = np.diag([1000, 1000, 1000, 4])
    counts[3, 1] = 4  # half of a rare class: much for it, nothing for class 1
    counts[0, 2] = 100
    order = similarity_order(counts).tolist()
    assert abs(order.index(3) - order.index(1)) == 1
    assert abs(order.index(0) - order.index(2)) == 1
