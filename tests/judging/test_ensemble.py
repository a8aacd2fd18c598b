"""The mean of several networks' probabilities."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score

from fovea.errors import FoveaError
from fovea.evaluation import Predictions
from fovea.judging import average


def predictions_of(seed, **changes):
    rng = np.random.default_rng(seed)
    made = Predictions(
        indices=torch.arange(40),
        labels=torch.arange(40) % 7,
        logits=torch.from_numpy(rng.normal(0, 3, (40, 7)).astype(np.float32)),
        class_names=tuple("abcdefg"),
        about={"split": "test", "fingerprint": "f", "ckpt": f"net{seed}"},
    )
    return dataclasses.replace(made, **changes)


def test_it_is_the_mean_of_probabilities_not_of_logits():
    members = [predictions_of(seed) for seed in range(3)]
    mean = average(iter(members), {"run": "three"})
    expected = np.mean([softmax(m.logits.numpy().astype(float), axis=1) for m in members], axis=0)
    np.testing.assert_allclose(mean.probabilities.numpy(), expected, atol=1e-6)
    of_logits = softmax(np.mean([m.logits.numpy() for m in members], axis=0), axis=1)
    assert np.abs(of_logits - expected).max() > 0.05, "the two differ on these"
    labels, metrics = mean.labels.numpy(), mean.about["metrics"]
    assert metrics["test/loss"] == pytest.approx(log_loss(labels, expected), rel=1e-5)
    assert metrics["test/top5"] == pytest.approx(top_k_accuracy_score(labels, expected, k=5))
    assert metrics["test/balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, expected.argmax(1))
    )
    assert mean.about["run"] == "three"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"about": {"split": "test", "fingerprint": "g"}}, "images"),
        ({"class_names": tuple("abcdefh")}, "classes"),
        ({"labels": torch.zeros(40, dtype=torch.int64)}, "labels"),
        ({"logits": torch.zeros(40, 6), "class_names": tuple("abcdef")}, "classes"),
    ],
)
def test_members_of_other_data_are_refused(changes, what):
    with pytest.raises(FoveaError, match=f"not of the same {what}"):
        average([predictions_of(0), predictions_of(1, **changes)])


def test_a_member_without_numbers_makes_its_samples_invalid():
    broken = predictions_of(1)
    broken.logits[3] = torch.nan
    mean = average([predictions_of(0), broken])
    assert mean.valid.tolist() == [row != 3 for row in range(40)]
