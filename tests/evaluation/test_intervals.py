import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from fovea.evaluation.intervals import bootstrap, logit_interval, wilson


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_statsmodels(level):
    for hits, n in [(0, 1), (1, 1), (0, 50), (50, 50), (1, 50), (37_123, 50_000), (5, 9)]:
        expected = proportion_confint(hits, n, alpha=1 - level, method="wilson")
        assert wilson(hits, n, level) == pytest.approx(expected, abs=1e-12)
    low, high = wilson([0, 3], [0, 4])
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == wilson(3, 4)
    assert wilson(50, 50)[1] == 1
    assert wilson(0, 50)[0] == 0


def test_a_level_outside_0_and_1_is_refused():
    with pytest.raises(ValueError, match="level=95"):
        wilson(1, 2, level=95)


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(5).exponential(size=400)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap(lambda rows: values[rows].mean(), 400, seed=2, resamples=4000)
    width = expected.high - expected.low
    assert found == pytest.approx((expected.low, expected.high), abs=0.05 * width)
    assert found == bootstrap(lambda rows: values[rows].mean(), 400, seed=2, resamples=4000)
    assert found != bootstrap(lambda rows: values[rows].mean(), 400, seed=3, resamples=4000)


def test_bootstrap_of_several_numbers_and_where_it_says_nothing():
    values = np.arange(10.0)

    def statistic(rows):
        return [values[rows].mean(), 1.0, np.nan, values[rows].mean() if 3 in rows else np.nan]

    low, high = bootstrap(statistic, 10, resamples=200)
    assert low[0] < 4.5 < high[0]
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, True, False]
    assert np.isnan(bootstrap(lambda rows: values[rows].mean(), 1)).all()


def test_bootstrap_of_what_is_infinite_says_nothing():
    values = np.array([1.0, 2, 3, 4])
    infinite = np.array([1.0, 2, 3, np.inf])
    low, high = bootstrap(lambda rows: [infinite[rows].mean(), values[rows].mean()], 4)
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] < 2.5 < high[1]


def test_logit_interval_stays_inside_and_is_wald_for_small_errors():
    low, high = logit_interval(0.8, 1e-4)
    assert (low, high) == pytest.approx((0.8 - 1.96e-4, 0.8 + 1.96e-4), abs=1e-7)
    low, high = logit_interval(0.999, 0.01)
    assert 0 < low < 0.999 < high < 1
    assert np.isnan([*logit_interval(1.0, 0.0), *logit_interval(0.5, 0.0)]).all()
