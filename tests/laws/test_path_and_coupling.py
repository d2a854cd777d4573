"""The path's target is its derivative; the coupling is optimal and keeps the marginals."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from cfmvc_scvi.flow import integrate, optimal_coupling, random_coupling, straight_path


def test_target_is_the_derivative_of_the_path() -> None:
    z_0, z_1 = torch.randn(2, 6, 3, dtype=torch.float64)
    t = torch.rand(6, dtype=torch.float64, requires_grad=True)
    sample = straight_path(z_0, z_1, t)
    for dimension in range(3):
        (derivative,) = torch.autograd.grad(sample.z_t[:, dimension].sum(), t, retain_graph=True)
        torch.testing.assert_close(derivative, sample.target[:, dimension], rtol=0, atol=1e-14)


def test_following_the_target_leads_from_source_to_target() -> None:
    z_0, z_1 = torch.randn(2, 6, 3, dtype=torch.float64)
    field = lambda z, t: straight_path(z_0, z_1, t).target  # noqa: E731
    solution = integrate(field, z_0, method="midpoint", n_steps=3)
    torch.testing.assert_close(solution.z, z_1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_equal_groups_get_the_cheapest_permutation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z_0, z_1 = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    cost = cdist(z_0, z_1, "sqeuclidean")
    cheapest = min(sum(cost[i, j] for j, i in enumerate(p)) for p in permutations(range(6)))
    index_0, index_1 = optimal_coupling(z_0, z_1, rng, max_cells=6)
    assert cost[index_0, index_1].sum() == pytest.approx(cheapest, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(3, 5), (5, 3), (1, 4), (4, 1)])
def test_unequal_groups_draw_from_an_optimal_plan_with_both_marginals(n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    z_0, z_1 = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    cost = cdist(z_0, z_1, "sqeuclidean")
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    optimum = linprog(cost.ravel(), A_eq=marginals, b_eq=np.r_[np.full(n, 1 / n), np.full(m, 1 / m)]).fun

    n_draws = 2000
    plan = np.zeros((n, m))
    for _ in range(n_draws):
        np.add.at(plan, optimal_coupling(z_0, z_1, rng, max_cells=10), 1 / (n_draws * m))
    np.testing.assert_allclose(plan.sum(axis=0), 1 / m)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / n, atol=4 * 0.5 / np.sqrt(n_draws))
    assert (plan * cost).sum() == pytest.approx(optimum, rel=0.05)


@pytest.mark.parametrize("couple", [optimal_coupling, random_coupling])
@pytest.mark.parametrize(("n", "m"), [(7, 24), (24, 7)])
def test_blocks_keep_the_marginals(couple, n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    z_0, z_1 = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    n_draws = 1000
    used = sum(np.bincount(couple(z_0, z_1, rng, max_cells=5)[0], minlength=n) for _ in range(n_draws))
    np.testing.assert_allclose(used / n_draws, m / n, atol=5 * np.sqrt(m / n / n_draws))


def test_optimal_pairs_of_shifted_groups_are_the_shift() -> None:
    rng = np.random.default_rng(0)
    z_0 = rng.normal(size=(60, 3))
    order = rng.permutation(60)
    index_0, _ = optimal_coupling(z_0, z_0[order] + [5.0, 0.0, -2.0], rng, max_cells=60)
    assert np.array_equal(index_0, order)


def test_optimal_pairs_are_cyclically_monotone() -> None:
    rng = np.random.default_rng(1)
    z_0, z_1 = rng.normal(size=(40, 2)), rng.normal(2.0, 3.0, size=(40, 2))
    index_0, index_1 = optimal_coupling(z_0, z_1, rng, max_cells=40)
    a, b = z_0[index_0], z_1[index_1]
    swaps = ((a[:, None] - a[None]) * (b[:, None] - b[None])).sum(axis=2)
    assert swaps.min() > -1e-12
