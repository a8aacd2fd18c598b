import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, log_loss

from fovea.comparison.agreement import measure_agreement
from fovea.comparison.resampling import Resampled
from fovea.comparison.results import judge


def test_one_run_each_has_the_analytic_error_of_paired_shares():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 2000)) < [[0.7], [0.75]]
    found = Resampled(np.stack([a, b], 1).astype(float), [[0], [1]], resamples=4000).difference(
        0, 1
    )
    d = b.astype(float) - a
    assert found.value == pytest.approx(d.mean())
    assert found.error == pytest.approx(d.std() / math.sqrt(2000), rel=0.04)
    assert found.margin == pytest.approx(1.961 * found.error, rel=1e-3)


def test_seeds_add_the_variance_that_samples_do_not_explain():
    # Two runs of A are all right or all wrong: there is no luck with samples in it.
    scores = np.zeros((400, 4))
    scores[:, 0], scores[:, 2:] = 1, 0.5
    found = Resampled(scores, [[0, 1], [2, 3]], resamples=4000).difference(0, 1)
    assert found.error == pytest.approx(0.5, rel=0.05)  # sd(0, 1) / sqrt(2), n - 1
    assert found.freedom == pytest.approx(1, abs=0.2)


def test_a_single_run_varies_with_its_seed_as_those_it_is_compared_with():
    # All runs are right on the first so many samples of 1000: luck with samples is a tenth of it.
    right = np.array([100, 500, 900, 500])
    scores = (np.arange(1000)[:, None] < right).astype(float)
    found = Resampled(scores, [[0, 1, 2], [3]], resamples=4000)
    theirs = 0.4  # sd(0.1, 0.5, 0.9)
    for difference in (found.difference(0, 1), found.difference(1, 0)):
        assert difference.error == pytest.approx(theirs * math.sqrt(1 + 1 / 3), rel=0.03)
        assert difference.freedom == pytest.approx(2, abs=0.2)
    assert found.score(0).error == pytest.approx(theirs / math.sqrt(3), rel=0.03)
    assert found.score(1).error == pytest.approx(0.5 / math.sqrt(1000), rel=0.05)


def draw(rng, runs, n, spread, trials):
    """Yield scores of runs of one accuracy, which differ by seed and by sample."""
    for _ in range(trials):
        hardness = 1.5 * rng.standard_normal((n, 1))
        shift = spread * rng.standard_normal(runs)
        yield (1 + hardness + shift + rng.standard_normal((n, runs)) > 0).astype(float)


@pytest.mark.parametrize("spread", [0, 0.15])
@pytest.mark.parametrize("groups", [[[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [3]]], ids=["3v3", "3v1"])
def test_no_difference_is_claimed_where_there_is_none(spread, groups):
    rng = np.random.default_rng(1)
    claims = [
        Resampled(scores, groups, i, 300).difference(0, 1).p_value <= 0.05
        for i, scores in enumerate(draw(rng, sum(map(len, groups)), 300, spread, 250))
    ]
    # A test of just 5 % would exceed this once in a thousand.
    assert sum(claims) <= stats.binom.ppf(0.999, 250, 0.05)


def test_scores_are_those_of_scikit_learn(made_up):
    rng = np.random.default_rng(0)
    predictions = made_up(rng.random(200) < 0.7)
    results = judge(predictions)
    labels, predicted = results.labels, results.predicted
    means = {name: values.mean() for name, values in results.scores.items()}
    assert means["top1"] == pytest.approx((labels == predicted).mean())
    assert means["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert means["nll"] == pytest.approx(log_loss(labels, predictions.probabilities), rel=1e-5)


def test_agreement_by_scikit_learn_and_by_hand():
    rng = np.random.default_rng(0)
    predicted = rng.integers(4, size=(300, 3))
    correct = predicted == rng.integers(4, size=(300, 1))
    found = measure_agreement(predicted, correct, 4)
    assert found.equal[0, 1] == (predicted[:, 0] == predicted[:, 1]).mean()
    assert found.kappa[0, 2] == pytest.approx(cohen_kappa_score(predicted[:, 0], predicted[:, 2]))
    # Error consistency is Cohen's kappa of right and wrong.
    expected = cohen_kappa_score(correct[:, 1], correct[:, 2])
    assert found.error_consistency[1, 2] == pytest.approx(expected)
    perfect = measure_agreement(predicted, np.ones_like(correct), 4)
    assert np.isnan(perfect.error_consistency).all()
