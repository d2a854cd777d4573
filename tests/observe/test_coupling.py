from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe import cell_rates, cell_uniforms, couple_counts, expected_rate, mean_rate, relative_profile


def uniforms(shape, stream="a"):
    return cell_uniforms(0, [str(i) for i in range(shape[0])], shape[1], stream)


@pytest.mark.parametrize("theta", [1e-6, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("ratio", [0.0, 1e-12, 0.999, 1.001, 50.0])
def test_extreme_counts_depths_and_dispersions_give_counts(theta, ratio):
    counts = sp.csr_matrix([[0, 0, 0, 0], [10**6, 0, 3, 1], [1, 0, 0, 0], [5, 0, 2000, 70]])
    own = mean_rate(counts)
    result = couple_counts(counts, own, own * ratio, np.full(4, theta), uniforms((4, 4)), uniforms((4, 4), "b"))
    values = result.toarray()
    assert np.issubdtype(values.dtype, np.integer) and (values >= 0).all()
    assert (values[0] == 0).all(), "a cell without counts stays without"
    assert (values[:, 1] == 0).all(), "a gene without rate stays without"
    assert result.has_canonical_format and (result.data != 0).all()
    if ratio == 0.0:
        assert not values.any()


def test_the_callers_counts_are_not_touched():
    counts = sp.csr_matrix(np.array([[3.0, 0.0], [1.0, 2.0]]))
    counts.data[0] = 0  # a stored zero
    before = counts.copy()
    couple_counts(counts, [1.0, 1.0], [0.1, 5.0], [1.0, 1.0], uniforms((2, 2)), uniforms((2, 2)))
    np.testing.assert_array_equal(counts.data, before.data)
    np.testing.assert_array_equal(counts.indices, before.indices)


def test_each_cell_may_have_rates_of_its_own():
    counts = sp.csr_matrix(np.full((2000, 2), 500))
    target = np.tile([2500.0, 5000.0], (2000, 1))
    target[1000:] *= [0.2, 3.0]
    noise = uniforms(counts.shape), uniforms(counts.shape, "b")
    result = couple_counts(counts, [5000, 5000], target, [9.0, 9.0], *noise).toarray()
    np.testing.assert_allclose(result[:1000].mean(axis=0), [250, 500], rtol=0.02)
    np.testing.assert_allclose(result[1000:].mean(axis=0), [50, 1500], rtol=0.03)
    assert (result[:1000, 1] == 500).all()


def test_expected_rate_is_the_mean_of_coupled_counts():
    rng = np.random.default_rng(0)
    n, rate = 40_000, np.array([3000.0, 1500.0, 500.0, 5000.0])
    counts = sp.csr_matrix(rng.poisson(np.tile(rate / 10, (n, 1))))
    target = np.array([1500.0, 2500.0, 0.0, 5000.0])
    coupled = couple_counts(counts, rate, target, np.full(4, 5.0), uniforms(counts.shape), uniforms(counts.shape, "b"))
    mean = coupled.toarray().mean(axis=0)
    np.testing.assert_allclose(expected_rate(rate[None], rate, target)[0], 1e4 * mean / mean.sum(), rtol=0.01, atol=1)


def test_expected_rate_returns_itself_where_nothing_changes():
    rng = np.random.default_rng(0)
    rate = rng.gamma(1, 100, (6, 9))
    own = rate.mean(axis=0)
    np.testing.assert_array_equal(expected_rate(rate, own, own), rate)
    profile = rng.gamma(2, 0.5, rate.shape)
    np.testing.assert_array_equal(expected_rate(rate, own, own, (profile, profile)), rate)


def test_expected_rate_keeps_totals_and_sign_and_survives_empty_cells():
    rng = np.random.default_rng(0)
    rate = rng.gamma(1, 100, (6, 9))
    rate[0] = 0
    own = rate.mean(axis=0)
    own[2] = 0
    after = expected_rate(rate, own, own * rng.lognormal(0, 1, 9), (rng.gamma(2, 0.5, rate.shape),) * 2)
    np.testing.assert_allclose(after.sum(axis=1), rate.sum(axis=1))
    assert (after >= 0).all() and np.isfinite(after).all()
    assert not expected_rate(rate, own, np.zeros(9))[:, own > 0].any()


def test_relative_profile_is_one_without_weight_and_has_mean_one_with_it():
    rate = np.random.default_rng(0).gamma(5, 2, (500, 4))
    rate[:, 3] = 0
    np.testing.assert_array_equal(relative_profile(rate, rate.mean(axis=0), 0.0, 10.0), np.ones((500, 4)))
    np.testing.assert_allclose(relative_profile(rate, rate.mean(axis=0), 0.7, 10.0).mean(axis=0), 1.0)
    assert relative_profile(rate * 100, rate.mean(axis=0), 1.0, 10.0).max() == 10.0


@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_cell_rates_are_the_rate_times_the_relative_profile(weight):
    share, rate = np.random.default_rng(0).gamma(1, 2, (500, 4)), np.array([3.0, 0.0, 5.0, 7.0])
    share[:, 3] = 0
    mean = share.mean(axis=0)
    expected = rate * relative_profile(share, mean, weight, 3.0)
    np.testing.assert_allclose(cell_rates(share, mean, rate, weight, 3.0), expected, rtol=1e-12)


def test_uniforms_for_thinning_are_needed_at_counts_only():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(0.7, (40, 9)))
    own, thin, add = mean_rate(counts), uniforms(counts.shape), uniforms(counts.shape, "b")
    arguments = own, own * np.linspace(0, 2, 9), np.ones(9)
    at_counts = sp.csr_matrix(counts.astype(bool).multiply(thin))
    full = couple_counts(counts, *arguments, thin, add)
    np.testing.assert_array_equal(couple_counts(counts, *arguments, at_counts, add).toarray(), full.toarray())


def bad(**changes):
    arguments = {
        "counts": sp.csr_matrix(np.eye(3)),
        "own_rate": np.ones(3),
        "target_rate": np.ones(3),
        "theta": np.ones(3),
        "thinning_uniforms": np.full((3, 3), 0.5),
        "superposition_uniforms": np.full((3, 3), 0.5),
    }
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"counts": sp.csr_matrix([[0, 1.5, 0]] * 3)},
            "3 of 3 counts are not whole numbers >= 0, first cell 0, gene 1: 1.5",
        ),
        ({"counts": sp.csr_matrix([[0, 0, 0], [0, -1, 0], [0, 0, 0]])}, "1 of 1 counts .* first cell 1, gene 1"),
        ({"counts": sp.csr_matrix([[0, np.nan, 0]] * 3)}, "counts are not whole numbers"),
        ({"own_rate": np.ones(2)}, r"own_rate has shape \(2,\), expected \(3,\)"),
        ({"target_rate": [1, np.nan, 1]}, "target_rate must be finite and >= 0: 1 of 3 genes are not, first gene 1"),
        ({"target_rate": [1, 1, -1]}, "first gene 2: -1"),
        ({"theta": [1, 0, 1]}, "theta must be finite and > 0"),
        ({"thinning_uniforms": np.full((3, 3), 1.0)}, r"thinning_uniforms must lie inside \(0, 1\); 9 of 9"),
        ({"superposition_uniforms": np.full((2, 3), 0.5)}, "superposition_uniforms has shape"),
        ({"target_rate": np.full((3, 3), -1.0)}, "target_rate must be finite and >= 0; 9 of 9"),
        ({"own_rate": np.full((3, 3), np.nan)}, "own_rate must be finite"),
        ({"own_rate": np.ones((2, 3))}, r"own_rate has shape \(2, 3\), expected \(3, 3\)"),
        ({"thinning_uniforms": sp.csr_matrix(np.full((3, 3), 0.5))}, "values where the counts are not zero"),
        ({"thinning_uniforms": sp.csr_matrix(np.eye(3))}, r"inside \(0, 1\); 3 of 3"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message):
            couple_counts(**bad(**changes))


def test_rates_need_cells():
    with pytest.raises(DataError, match="There is no cell"):
        mean_rate(sp.csr_matrix((0, 3)))
    np.testing.assert_allclose(mean_rate(sp.csr_matrix([[1, 3], [0, 0]])), [1250, 3750])
