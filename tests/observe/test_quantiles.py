from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe import cell_uniforms, partner_uniforms, randomised_quantiles
from cfmvc_scvi.observe._inverse import negative_binomial_inverse


def group(n_cells=600, n_genes=12, seed=0):
    """Counts that the model describes, theta, and uniforms."""
    rng = np.random.default_rng(seed)
    theta = np.geomspace(0.3, 30, n_genes)
    mean = np.outer(rng.lognormal(0, 0.5, n_cells), np.geomspace(0.1, 50, n_genes)[::-1])
    counts = sp.csr_matrix(rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape)))
    return counts, theta, cell_uniforms(seed, [str(i) for i in range(n_cells)], n_genes, "ties")


def test_the_inverse_distribution_function_at_a_quantile_is_the_count():
    counts, theta, v = group()
    u = randomised_quantiles(counts, theta, v)
    depth = np.asarray(counts.sum(axis=1)).ravel()
    mean = np.outer(depth, np.asarray(counts.sum(axis=0)).ravel() / counts.sum())
    again = negative_binomial_inverse(u.ravel(), mean.ravel(), np.tile(theta, len(depth))).reshape(u.shape)
    inside = (u > 1e-6) & (u < 1 - 1e-6)  # what lies farther out is clipped
    assert inside.mean() > 0.995
    np.testing.assert_array_equal(again[inside], counts.toarray()[inside])


def test_quantiles_are_uniform_where_the_model_holds():
    rng = np.random.default_rng(0)
    theta = np.array([0.5, 3.0, 20.0, 1e5])  # the last gene carries the depth
    mean = np.outer(rng.lognormal(0, 0.4, 1000), [2.0, 5.0, 0.5, 2000.0])
    counts = sp.csr_matrix(rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape)))
    u = randomised_quantiles(counts, theta, cell_uniforms(0, [str(i) for i in range(1000)], 4, "ties"))
    for gene in range(3):
        assert stats.kstest(u[:, gene], "uniform").pvalue > 1e-3


def test_lent_uniforms_rank_as_the_quantiles_do_and_follow_their_cells():
    counts, theta, v = group()
    u, quantiles = partner_uniforms(counts, theta, v), randomised_quantiles(counts, theta, v)
    np.testing.assert_array_equal(u.argsort(axis=0), quantiles.argsort(axis=0))
    order = np.random.default_rng(0).permutation(len(u))
    np.testing.assert_array_equal(partner_uniforms(counts[order], theta, v[order]), u[order])


@pytest.mark.parametrize("theta", [1e-3, 1e6])
def test_extreme_groups_stay_inside_the_unit_interval(theta):
    dense = group(n_cells=9)[0].toarray()
    dense[0], dense[1, 2], dense[:, 3] = 0, 10**6, 0
    v = cell_uniforms(0, [str(i) for i in range(9)], 12, "ties")
    for n in (9, 1, 0):
        for function in (randomised_quantiles, partner_uniforms):
            u = function(sp.csr_matrix(dense[:n]), np.full(12, theta), v[:n])
            assert u.shape == (n, 12) and ((u > 0) & (u < 1)).all()


def test_arguments_that_do_not_fit_are_refused():
    counts, theta, v = group(n_cells=5)
    with pytest.raises(DataError, match="theta must be finite and > 0"):
        partner_uniforms(counts, theta * 0, v)
    with pytest.raises(DataError, match="uniforms has shape"):
        randomised_quantiles(counts, theta, v[:, :3])
