"""Coupled counts have the right distribution, move monotonically, and never depend on a cell's companions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cfmvc_scvi.observe import cell_choice, cell_uniforms, couple_counts, mean_rate, partner_uniforms

N_CELLS, N_GENES = 30, 20


def problem(seed: int = 0):
    """Counts, own and target rates, theta and both uniforms of N_CELLS cells."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(0.3, 20, N_GENES)
    mean = np.outer(rng.lognormal(0, 0.5, N_CELLS), rng.lognormal(0.5, 1.5, N_GENES))
    counts = sp.csr_matrix(rng.poisson(mean * rng.gamma(theta, 1 / theta, (N_CELLS, N_GENES))))
    own = mean_rate(counts)
    target = own * rng.lognormal(0, 1, N_GENES)
    names = [f"cell{i}" for i in range(N_CELLS)]
    return counts, own, target, theta, *(cell_uniforms(seed, names, N_GENES, kind) for kind in ("thin", "add"))


def midpoints(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float64])
def test_ratio_of_one_returns_the_counts_themselves(dtype):
    counts, own, _, theta, thin, add = problem()
    result = couple_counts(counts.astype(dtype), own, own, theta, thin, add)
    assert np.issubdtype(result.dtype, np.integer)
    np.testing.assert_array_equal(result.toarray(), counts.toarray())


def test_cells_whose_own_rates_stay_keep_their_counts_whatever_the_others_do():
    counts, own, target, theta, thin, add = problem()
    before, after = np.ones((N_CELLS, N_GENES)), np.ones((N_CELLS, N_GENES))
    before[::2] = np.maximum(target, own)  # half of the cells go from own * Q to target * K, which are equal
    after[::2] = before[::2] * own / np.where(target > 0, target, 1.0)
    before[::2], after[::2] = before[::2] * (target > 0), after[::2] * (target > 0)
    still = own * before == target * after
    result = couple_counts(counts, own * before, target * after, theta, thin, add).toarray()
    np.testing.assert_array_equal(result[still], counts.toarray()[still])
    assert still[::2].mean() > 0.5 and (result != counts.toarray()).any()


@pytest.mark.parametrize(
    ("mean", "theta", "ratio"), [(2.0, 1.5, 0.3), (0.4, 0.3, 0.8), (6.0, 20.0, 0.05), (5.0, 2.0, 0.98)]
)
def test_thinned_negative_binomials_are_negative_binomial(mean, theta, ratio):
    x = np.arange(120)  # every value once per uniform: the exact mixture over x, no sampling
    u = midpoints(400)
    counts = sp.csr_matrix(np.repeat(x, len(u))[:, None])
    thin = np.tile(u, len(x))[:, None]
    result = couple_counts(counts, [1.0], [ratio], [theta], thin, np.full_like(thin, 0.5)).toarray()
    weight = np.repeat(stats.nbinom.pmf(x, theta, theta / (theta + mean)), len(u)) / len(u)
    got = np.bincount(result.ravel(), weight, len(x))
    np.testing.assert_allclose(got, stats.nbinom.pmf(x, theta, theta / (theta + ratio * mean)), atol=2 / len(u))
    assert got @ x == pytest.approx(ratio * mean, rel=2e-3)


@pytest.mark.parametrize(
    ("mean", "theta", "ratio"), [(2.0, 1.5, 1.3), (0.4, 0.3, 5.0), (6.0, 20.0, 2.0), (5.0, 2.0, 1.02)]
)
def test_negative_binomials_of_a_higher_rate_are_negative_binomial(mean, theta, ratio):
    x, u, depth = np.arange(120), midpoints(400), 1e4
    rest = np.full(len(x) * len(u), depth)
    counts = sp.csr_matrix(np.column_stack([np.repeat(x, len(u)), rest - np.repeat(x, len(u))]))
    add = np.column_stack([np.tile(u, len(x)), rest * 0 + 0.5])
    result = couple_counts(counts, [mean, 7.0], [ratio * mean, 7.0], [theta, 1.0], add, add).toarray()
    weight = np.repeat(stats.nbinom.pmf(x, theta, theta / (theta + mean)), len(u)) / len(u)
    k = np.arange(result[:, 0].max() + 1)
    got = np.bincount(result[:, 0], weight, len(k))
    np.testing.assert_allclose(got, stats.nbinom.pmf(k, theta, theta / (theta + ratio * mean)), atol=2 / len(u))
    assert got @ k == pytest.approx(ratio * mean, rel=1e-2)
    assert (result[:, 1] == counts.toarray()[:, 1]).all()


@pytest.mark.parametrize(("own", "target", "theta"), [(0.0, 30.0, 2.0), (50.0, 60.0, 0.5), (10.0, 800.0, 10.0)])
@pytest.mark.parametrize("count", [0, 4])
def test_what_is_added_is_negative_binomial_given_the_count(own, target, theta, count):
    u, depth = midpoints(20_000), 1000
    counts = sp.csr_matrix(np.column_stack([np.full(len(u), count), np.full(len(u), depth - count)]))
    add = np.column_stack([u, u])
    added = couple_counts(counts, [own, 7.0], [target, 7.0], [theta, 1.0], add, add).toarray()[:, 0] - count
    mean = (target - own) / 10 * (theta + count) / (theta + own / 10)
    k = np.arange(added.max() + 1)
    size = theta + count
    np.testing.assert_allclose(np.bincount(added) / len(u), stats.nbinom.pmf(k, size, size / (size + mean)), atol=2e-4)
    assert added.mean() == pytest.approx(mean, rel=5e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.floats(0, 3), step=st.floats(0, 3), with_profiles=st.booleans())
def test_counts_are_monotone_in_the_target_rate(seed, low, step, with_profiles):
    counts, own, _, theta, thin, add = problem(seed % 7)
    rng = np.random.default_rng(seed)
    before, after = rng.gamma(2, 0.5, (2, N_CELLS, N_GENES)) if with_profiles else (1.0, 1.0)
    less, more = (
        couple_counts(counts, own * before, own * ratio * after, theta, thin, add).toarray()
        for ratio in (low, low + step)
    )
    assert (less <= more).all()
    if low + step <= 1 and not with_profiles:
        assert (more <= counts.toarray()).all()
    if low >= 1 and not with_profiles:
        assert (less >= counts.toarray()).all()


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(N_CELLS)), n=st.integers(1, N_CELLS), seed=st.integers(-5, 5))
def test_order_and_subsets_of_cells_change_nothing(order, n, seed):
    counts, own, target, theta, _, _ = problem()
    names = np.array([f"cell{i}" for i in range(N_CELLS)])
    some = np.array(order[:n])

    def predict(cells):
        thin, add = (cell_uniforms(seed, names[cells], N_GENES, kind) for kind in ("thin", "add"))
        partner = cell_choice(seed, names[cells], [0.2, 0.5, 0.0, 0.3], "partner")
        return couple_counts(counts[cells], own, target, theta, thin, add).toarray(), partner

    everything, partners = predict(np.arange(N_CELLS))
    selected, selected_partners = predict(some)
    np.testing.assert_array_equal(selected, everything[some])
    np.testing.assert_array_equal(selected_partners, partners[some])


def test_lent_uniforms_are_uniform_in_every_gene_and_keep_dependence():
    rng = np.random.default_rng(1)
    n = 400
    program = rng.gamma(1.0, 1.0, (n, 1))
    heavy = rng.random((n, 1)) < 0.1  # a mixture that no negative binomial fits
    background = np.full((n, 2), 100.0)  # depth, which the quantiles are given
    counts = rng.poisson(np.hstack([program * 3, program * 5, 1 + 40 * heavy, background]))
    v = cell_uniforms(0, [str(i) for i in range(n)], 5, "ties")
    u = partner_uniforms(sp.csr_matrix(counts), np.array([1.0, 1.0, 20.0, 5.0, 5.0]), v)
    np.testing.assert_array_equal(np.sort(np.floor(u * n), axis=0), np.tile(np.arange(n)[:, None], 5))
    assert stats.spearmanr(u[:, 0], u[:, 1]).statistic > 0.5
    assert abs(stats.spearmanr(u[:, 0], u[:, 2]).statistic) < 0.2
