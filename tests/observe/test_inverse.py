from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cfmvc_scvi.observe._inverse import binomial_inverse, negative_binomial_inverse

EDGE = [2.0**-53, 1e-6, 0.5, 1 - 1e-6, 1 - 2.0**-52]


def mesh(*axes):
    return [grid.ravel().astype(float) for grid in np.meshgrid(*axes)]


@pytest.mark.parametrize("scale", [2, 60, 2000])
def test_inverses_equal_those_of_scipy(scale):
    rng = np.random.default_rng(0)
    u, p, size = rng.random(1000), rng.random(1000), np.exp(rng.uniform(-4, 4, 1000))
    n, mean = np.ceil(rng.exponential(scale, 1000)), rng.exponential(scale, 1000)
    np.testing.assert_array_equal(binomial_inverse(u, n, p), stats.binom.ppf(u, n, p))
    expected = stats.nbinom.ppf(u, size, size / (size + mean))
    np.testing.assert_array_equal(negative_binomial_inverse(u, mean, size), expected)


def test_binomial_inverse_is_exact_at_its_ends_and_right_at_the_edges():
    n, p, u = mesh([0, 1, 5, 64, 65, 1e3, 1e6], [0, 1e-300, 1e-12, 1e-3, 0.5, 0.500001, 1 - 1e-6, 1], EDGE)
    k = binomial_inverse(u, n, p)
    assert ((k >= 0) & (k <= n) & (k == np.rint(k))).all()
    np.testing.assert_array_equal(k[p == 1], n[p == 1])
    assert (k[p == 0] == 0).all()
    assert_quantile(u, stats.binom.cdf(k, n, p), stats.binom.cdf(k - 1, n, p))


def test_negative_binomial_inverse_is_finite_and_right_at_the_edges():
    mean, size, u = mesh([0, 1e-300, 1e-8, 1e-3, 1, 1e3, 1e6], [1e-5, 1e-3, 0.3, 50, 1e5, 1e8], EDGE)
    k = negative_binomial_inverse(u, mean, size)
    assert (np.isfinite(k) & (k >= 0) & (k == np.rint(k))).all()
    assert (k[mean == 0] == 0).all()
    p = size / (size + mean)
    assert_quantile(u, stats.nbinom.cdf(k, size, p), np.where(k > 0, stats.nbinom.cdf(k - 1, size, p), 0.0))


def assert_quantile(u, reached, below):
    """F(k - 1) < u <= F(k), up to rounding."""
    assert (reached >= u * (1 - 1e-9) - 1e-12).all()
    assert (below <= u * (1 + 1e-9) + 1e-12).all()
