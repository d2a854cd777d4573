from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe import expected_log1p_curve, rates_of_expected_log1p


@pytest.mark.parametrize("theta", [0.05, 0.5, 5.0, 1e4])
@pytest.mark.parametrize("depth", [5.0, 300.0, 20_000.0])
@pytest.mark.parametrize("rate", [1e-3, 1.0, 50.0, 2000.0])
def test_curve_is_the_sum_over_the_distribution(rate, depth, theta):
    mean = rate * depth / 1e4
    k = np.arange(int(mean + 60 * np.sqrt(mean + mean**2 / theta) + 50))
    direct = (stats.nbinom.pmf(k, theta, theta / (theta + mean)) * np.log1p(1e4 * k / depth)).sum()
    assert expected_log1p_curve([rate], [depth], [theta])[0] == pytest.approx(direct, rel=1e-6, abs=1e-8)


def test_curve_averages_over_quantiles_of_depth():
    depths = np.random.default_rng(0).lognormal(7, 0.6, 199)
    each = [expected_log1p_curve([3.0], [d], [2.0])[0] for d in depths]
    fine = expected_log1p_curve([3.0], depths, [2.0], ObservationConfig(depth_levels=200))
    assert fine[0] == pytest.approx(np.mean(each), rel=2e-3)
    assert expected_log1p_curve([3.0], depths, [2.0])[0] == pytest.approx(np.mean(each), rel=2e-2)


def test_curve_increases_from_zero():
    rates = np.concatenate([[0.0], np.geomspace(1e-8, 1e8, 100)])
    curve = expected_log1p_curve(rates, [0.0, 100.0, 5000.0], np.full(101, 0.4))
    assert curve[0] == 0 and (np.diff(curve) > 0).all() and np.isfinite(curve).all()


def test_rates_invert_the_curve():
    rng = np.random.default_rng(0)
    rates, theta, depths = np.exp(rng.uniform(-14, 10, 300)), np.exp(rng.uniform(-3, 5, 300)), rng.lognormal(7, 1, 50)
    goal = expected_log1p_curve(rates, depths, theta)
    np.testing.assert_allclose(rates_of_expected_log1p(goal, depths, theta), rates, rtol=1e-6)


def test_goals_of_zero_or_below_have_rate_zero():
    np.testing.assert_array_equal(rates_of_expected_log1p([0.0, -2.0], [1000.0], [1.0, 1.0]), [0.0, 0.0])


def test_impossible_arguments_are_refused():
    with pytest.raises(DataError, match="All depths are zero"):
        rates_of_expected_log1p([1.0], [0.0, 0.0], [1.0])
    with pytest.raises(DataError, match="There is no depth"):
        expected_log1p_curve([1.0], [], [1.0])
    with pytest.raises(DataError, match="goal must be finite"):
        rates_of_expected_log1p([np.nan], [10.0], [1.0])
    with pytest.raises(DataError, match=r"theta has shape \(2,\), expected \(1,\)"):
        expected_log1p_curve([1.0], [10.0], [1.0, 2.0])
