import numpy as np
import pytest

from cfmvc_scvi.shift import DepthCurve

DEPTHS = np.array([[150.0, 200.0, 300.0], [3000.0, 4000.0, 9000.0]])


def test_curve_is_the_mean_of_negative_binomial_cells() -> None:
    rng = np.random.default_rng(0)
    level = np.array([0.3, 5.0, 200.0])
    curve = DepthCurve.at(DEPTHS, 3.0).log_mean(np.tile(level, (2, 1)))
    for depths, expected in zip(DEPTHS, curve, strict=True):
        depth = np.repeat(depths, 60_000)[:, None]
        counts = rng.poisson(rng.gamma(3.0, level * depth / 3e4))
        cells = np.log1p(1e4 * counts / depth)
        assert (np.abs(cells.mean(0) - expected) < 5 * cells.std(0) / np.sqrt(len(cells)) + 2e-3 * expected).all()


def test_level_inverts_log_mean() -> None:
    curve = DepthCurve.at(DEPTHS, 3.0)
    level = np.tile(np.concatenate([[0.0], np.geomspace(1e-4, 5e3, 300)]), (2, 1))
    np.testing.assert_allclose(curve.level(curve.log_mean(level)), level, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dispersion", [0.2, 3.0, 50.0])
@pytest.mark.parametrize("depth", [1.0, 30.0, 1e3, 1e5])
def test_curve_increases_from_zero(dispersion: float, depth: float) -> None:
    table = DepthCurve.at(np.full((1, 2), depth), dispersion).table[0]
    assert table[0] == 0 and (np.diff(table) > 0).all()


def test_deeper_cells_have_a_larger_mean_at_the_same_level() -> None:
    shallow, deep = DepthCurve.at(DEPTHS, 3.0).log_mean(np.full((2, 1), 2.0))[:, 0]
    assert deep > 1.5 * shallow


def test_slope_is_the_derivative() -> None:
    curve = DepthCurve.at(DEPTHS, 3.0)
    level = np.tile(np.geomspace(1e-2, 1e3, 40), (2, 1))
    numeric = (curve.log_mean(level * 1.1) - curve.log_mean(level / 1.1)) / (level * (1.1 - 1 / 1.1))
    np.testing.assert_allclose(curve.slope(level), numeric, rtol=0.03)


def test_group_without_cells_stays_nan() -> None:
    curve = DepthCurve.at(np.array([[np.nan, np.nan], [900.0, 1000.0]]), 3.0)
    values = curve.level(np.array([[np.nan, np.nan], [0.5, 1.0]]))
    assert np.isnan(values[0]).all() and np.isfinite(values[1]).all()
