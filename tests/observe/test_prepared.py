"""What is computed once for many rates gives what is computed for each."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import special

from cfmvc_scvi.observe import cell_uniforms, couple_counts
from cfmvc_scvi.observe._prepared import PreparedCells, Tally
from cfmvc_scvi.observe.quantiles import _around


@pytest.fixture
def cells():
    """Counts from none to hundreds, a cell without any, uniforms and profiles."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, [0.5, 2.0, 2.0, 8.0, 300.0, 0.0], (40, 6))).astype(float)
    counts[3] = 0
    own = 1e4 * (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).mean(axis=0)
    noise = [cell_uniforms(0, [f"cell {i}" for i in range(40)], 6, stream) for stream in ("thinning", "other")]
    profiles = tuple(rng.gamma(4.0, 0.25, (2, 40, 6)))
    return sp.csc_matrix(counts), own, rng.uniform(0.3, 20, 6), noise, profiles


@pytest.mark.parametrize("with_profiles", [True, False])
def test_prepared_cells_give_the_counts_of_couple_counts_for_any_genes_and_rates(cells, with_profiles):
    counts, own, theta, noise, profiles = cells
    before, after = profiles if with_profiles else (1.0, 1.0)
    at_counts = noise[0][counts.indices, np.repeat(np.arange(6), np.diff(counts.indptr))]
    prepared = PreparedCells(counts, own, theta, at_counts, noise[1], profiles if with_profiles else None)
    for factor in (0.0, 0.3, 1.0, 1.5, 40.0):
        rate = own * factor + (factor > 1)
        expected = couple_counts(counts.tocsr(), own * before, rate * after, theta, *noise).toarray()
        assert (expected != counts.toarray()).any() or (factor == 1 and not with_profiles)
        for genes in (np.arange(6), np.array([4, 1]), np.array([], dtype=int)):
            np.testing.assert_array_equal(prepared.at(genes, rate).toarray(), expected[:, genes].T)


def test_a_tally_tells_depths_totals_and_means_whatever_was_replaced(cells):
    counts = cells[0].toarray()
    tally, rng = Tally(sp.csr_matrix(counts.T)), np.random.default_rng(1)
    for _ in range(12):
        genes = rng.permutation(6)[: rng.integers(1, 6)]
        counts[:, genes] = rng.poisson(rng.choice([0.2, 3.0, 60.0]), (40, len(genes)))
        tally.replace(genes, sp.csr_matrix(counts[:, genes].T))
        depth = np.maximum(counts.sum(axis=1), 1)
        np.testing.assert_array_equal(tally.depth(), counts.sum(axis=1))
        np.testing.assert_array_equal(tally.total, counts.sum(axis=0))
        logs = np.log1p(1e4 * counts / depth[:, None]).mean(axis=0)
        np.testing.assert_allclose(tally.mean(np.log1p, depth), logs, rtol=1e-13, atol=0)


def test_sums_around_a_count_are_the_incomplete_beta_function():
    rng = np.random.default_rng(2)
    mean, theta = rng.gamma(0.3, 40, 4000) + 1e-6, rng.uniform(0.3, 50, 4000)
    x = np.maximum(rng.poisson(rng.gamma(theta, mean / theta)), 1).astype(float)
    assert (x > 100).any()
    for found, k in zip(_around(x, mean, theta), (x, x + 1), strict=True):
        np.testing.assert_allclose(found, special.betainc(theta, k, theta / (theta + mean)), rtol=1e-10, atol=1e-12)
