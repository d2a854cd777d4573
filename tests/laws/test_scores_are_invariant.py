"""Scores depend on sets of cells and genes, never on their order; two samples of one distribution are at distance 0."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfmvc_scvi import metrics

SEEDS = st.integers(0, 2**20)


def _cells(seed, n_genes=12):
    rng = np.random.default_rng(seed)
    control, truth = (metrics.log_normalize(rng.poisson(rng.gamma(2, 2, n_genes), (n, n_genes))) for n in (25, 30))
    return metrics.log_normalize(rng.poisson(3.0, (28, n_genes))), truth, control, rng


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_order_of_genes(seed):
    p, t, c, rng = _cells(seed)
    order = rng.permutation(12)
    scores = metrics.de_scores(t, c)
    means = [x.mean(0) for x in (p, t, c)]
    shuffled = [mean[order] for mean in means]
    for score in (metrics.pearson_delta, lambda a, b, _: metrics.r2_of_means(a, b)):
        assert score(*shuffled) == pytest.approx(score(*means), abs=1e-9)
    expected = metrics.weighted_mse(means[0], means[1], scores)
    assert metrics.weighted_mse(shuffled[0], shuffled[1], scores[order]) == pytest.approx(expected)
    de, de_shuffled = (metrics.rank_sum_de(a, b) for a, b in ((p, c), (p[:, order], c[:, order])))
    np.testing.assert_allclose(de_shuffled.p_adj, de.p_adj[order], rtol=1e-12)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_order_of_cells(seed):
    p, t, c, rng = _cells(seed)
    again = rng.permutation(p)
    assert metrics.energy_distance(again, t) == pytest.approx(metrics.energy_distance(p, t), abs=1e-10)
    assert metrics.rbf_mmd2(again, t, 1.0) == pytest.approx(metrics.rbf_mmd2(p, t, 1.0), abs=1e-12)
    np.testing.assert_allclose(metrics.rank_sum_de(again, c).p_adj, metrics.rank_sum_de(p, c).p_adj, rtol=1e-12)


@given(SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_distances_are_symmetric_and_move_with_the_space(seed, scale, offset):
    p, t, _, rng = _cells(seed)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    distance = metrics.energy_distance(p, t)
    assert metrics.energy_distance(t, p) == pytest.approx(distance, abs=1e-10)
    moved = metrics.energy_distance(scale * p @ rotation + offset, scale * t @ rotation + offset)
    assert moved == pytest.approx(scale * distance, abs=1e-8 * max(scale, 1))
    mmd = metrics.rbf_mmd2(p, t, [1.0, 3.0])
    assert metrics.rbf_mmd2(scale * p @ rotation, scale * t @ rotation, [scale, 3 * scale]) == pytest.approx(
        mmd, abs=1e-9
    )


def test_distances_of_samples_of_one_distribution_have_mean_zero(rng):
    draws = [(rng.normal(size=(12, 3)), rng.normal(size=(9, 3))) for _ in range(400)]
    for distance in (metrics.energy_distance, lambda x, y: metrics.rbf_mmd2(x, y, [0.5, 2.0])):
        values = np.array([distance(x, y) for x, y in draws])
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
        assert (values < 0).any()


def test_energy_distance_sees_a_change_of_spread_alone(rng):
    x, narrow = rng.normal(size=(200, 4)), 0.3 * rng.normal(size=(200, 4))
    assert metrics.energy_distance(x, narrow) > 0.1
    assert abs(np.sum((x.mean(0) - narrow.mean(0)) ** 2)) < 0.1
