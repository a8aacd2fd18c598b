import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference
from statsmodels.stats.multitest import multipletests

from fovea.comparison.significance import (
    detectable_difference,
    detectable_from_error,
    holm,
    mcnemar,
)


@pytest.mark.parametrize(("b", "c"), [(1, 0), (3, 3), (5, 1), (0, 9), (40, 61), (300, 250)])
def test_exact_mcnemar_is_that_of_statsmodels(b, c):
    assert mcnemar(b, c)[1] == pytest.approx(reference([[10, b], [c, 10]], exact=True).pvalue)


def test_mid_p_by_hand():
    # Of 6 discordant samples 1 and 5: exact 2 (1 + 6) / 64, less the point's own 6 / 64.
    assert mcnemar(1, 5) == pytest.approx(((14 - 6) / 64, 14 / 64))
    # Equal counts: 1 less half of C(4, 2) / 16.
    assert mcnemar(2, 2) == pytest.approx((1 - 6 / 32, 1))
    assert mcnemar(0, 0) == (1, 1)


def test_mid_p_is_near_chi_squared_where_counts_are_large():
    mid, _ = mcnemar(510, 590)
    chi2 = reference([[0, 510], [590, 0]], exact=False, correction=False).pvalue
    assert mid == pytest.approx(chi2, rel=0.01)


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(0).random(20) ** 3
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)
    with_gap = holm([0.01, math.nan, 0.04])
    assert with_gap[[0, 2]] == pytest.approx([0.02, 0.04])
    assert math.isnan(with_gap[1])


def test_detectable_difference_solves_its_equation():
    n, q = 1000, 0.1
    d = detectable_difference(q, n)
    z_level, z_power = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
    needed = (z_level * math.sqrt(q) + z_power * math.sqrt(q - d * d)) ** 2 / d**2
    assert needed == pytest.approx(n)
    assert math.isnan(detectable_difference(0, n))
    assert math.isnan(detectable_difference(0.001, n))  # one sample never shows anything
    assert detectable_from_error(0.01, 1e9) == pytest.approx(0.01 * (z_level + z_power))


def test_level_and_power_are_what_is_said():
    rng = np.random.default_rng(0)
    n, q, trials = 1000, 0.1, 1200
    d = detectable_difference(q, n)

    def shown(difference):
        b, c, _ = rng.multinomial(n, [(q - difference) / 2, (q + difference) / 2, 1 - q], trials).T
        return np.mean([mcnemar(*pair)[0] <= 0.05 for pair in zip(b, c, strict=True)])

    assert shown(0) == pytest.approx(0.05, abs=0.02)  # three standard errors of the simulation
    assert shown(d) == pytest.approx(0.8, abs=0.035)
