from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe import cell_uniforms, couple_counts, match_rates, mean_rate


def reference(n_cells=120, n_genes=80, seed=0, depth=2000):
    """Negative-binomial cells: counts, own rates, theta, and both uniforms."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(0, 1.5, n_genes)
    theta = rng.uniform(0.5, 10, n_genes)
    mean = np.outer(rng.lognormal(np.log(depth), 0.4, n_cells), share / share.sum())
    counts = sp.csr_matrix(rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape)))
    names = [str(i) for i in range(n_cells)]
    return counts, mean_rate(counts), theta, *(cell_uniforms(seed, names, n_genes, kind) for kind in ("thin", "add"))


def within_reach(arguments, seed=0, sd=0.8, profiles=(1.0, 1.0)):
    """A goal that rates of the right total reach: means of the counts coupled at such rates; and those rates."""
    counts, own, theta, thin, add = arguments
    rng = np.random.default_rng(seed)
    target = own * np.exp(rng.normal(0, sd, len(own)) * (rng.random(len(own)) < 0.6))
    target *= own.sum() / target.sum()
    before, after = profiles
    return mean_log1p(couple_counts(counts, own * before, target * after, theta, thin, add)), target


def mean_log1p(counts):
    dense = np.asarray(counts.todense(), dtype=float)
    return np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)).mean(axis=0)


def one_count(counts):
    """The step of a mean that one more count in one cell makes."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    return np.log1p(1e4 / np.maximum(depth, 1)).mean() / len(depth)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_genes", [20, 400], ids=["dense", "sparse"])
@pytest.mark.parametrize("with_profiles", [False, True])
def test_means_of_the_coupled_counts_reach_the_goal(seed, n_genes, with_profiles):
    counts, own, theta, thin, add = arguments = reference(n_genes=n_genes, seed=seed)
    rng = np.random.default_rng(seed)
    profiles = tuple(rng.gamma(6, 1 / 6, (2, *counts.shape))) if with_profiles else None
    before, after = profiles or (1.0, 1.0)
    goal, _ = within_reach(arguments, seed, profiles=(before, after))
    matched = match_rates(counts, goal, own, theta, thin, add, profiles)
    coupled = couple_counts(counts, own * before, matched.rate * after, theta, thin, add)
    np.testing.assert_allclose(matched.achieved, mean_log1p(coupled), atol=1e-12)
    assert matched.converged.all()
    error = np.abs(matched.achieved - goal)
    assert error.max() < 3 * one_count(counts)
    assert error.mean() < 0.5 * one_count(counts)
    assert matched.n_iterations <= 60


def test_a_mean_that_steps_over_its_goal_takes_the_nearer_side():
    _, _, theta, thin, add = reference(n_cells=7, n_genes=2)
    depth = np.array(
        [300, 30_000, 2000, 500, 8000, 1000, 100]
    )  # one count is a large step in some, a small one in others
    counts = sp.csr_matrix(np.column_stack([[1, 2, 2, 1, 0, 5, 1], depth]))
    own = mean_rate(counts)
    own_mean = mean_log1p(counts)
    possible = np.array(
        [
            mean_log1p(couple_counts(counts, own, [rate, own[1]], theta, thin, add))[0]
            for rate in own[0] * np.linspace(0, 2, 400)
        ]
    )
    for goal in np.linspace(0.1, 1.2, 23) * own_mean[0]:
        matched = match_rates(counts, [goal, own_mean[1]], own, theta, thin, add)
        assert matched.converged[0]
        nearest = np.abs(possible - goal).min()
        assert abs(matched.achieved[0] - goal) <= max(nearest, one_count(counts) / 2) + 0.01


def test_cells_that_change_together_do_not_keep_the_search_going():
    counts, _, theta, thin, add = reference(n_cells=40, n_genes=300)
    twins = np.repeat(np.arange(40), 3)
    counts, thin, add = counts[twins], thin[twins], add[twins]
    goal = within_reach(reference(n_cells=200, n_genes=300))[0]
    matched = match_rates(counts, goal, mean_rate(counts), theta, thin, add)
    assert matched.converged.all()
    assert np.abs(matched.achieved - goal).max() < 3 * one_count(counts)


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_a_change_of_depth_that_the_goals_imply_is_found_fast(factor):
    counts, own, theta, thin, add = reference(n_genes=60)
    goal = mean_log1p(couple_counts(counts, own, factor * own, theta, thin, add))
    matched = match_rates(counts, goal, own, theta, thin, add, config=ObservationConfig(match_depth_change=1.0))
    assert matched.converged.all()
    assert matched.n_iterations <= 40
    assert np.median(matched.rate / own) == pytest.approx(factor, rel=0.15)


@pytest.mark.parametrize("n_genes", [25, 400], ids=["dense", "sparse"])
@pytest.mark.parametrize("change", [-0.4, 0.3])
def test_the_same_expression_is_met_at_the_depth_that_is_expected(n_genes, change):
    counts, own, theta, thin, add = reference(n_cells=400, n_genes=n_genes)
    matched = match_rates(counts, mean_log1p(counts), own, theta, thin, add, depth_change=change)
    coupled = couple_counts(counts, own, matched.rate, theta, thin, add)
    moved = np.log(coupled.sum(axis=1) / counts.sum(axis=1)).mean()
    assert matched.converged.all()
    assert moved == pytest.approx(change, abs=0.05)
    often = np.asarray(counts.mean(axis=0)).ravel() > 0.2
    assert np.median(np.log(matched.rate / own)[often]) == pytest.approx(change, abs=0.05)


def test_goals_that_ask_for_depth_are_bounded_around_the_one_expected():
    counts, own, theta, thin, add = reference(n_genes=25)
    goal = mean_log1p(counts) + 0.8
    config = ObservationConfig(match_depth_change=0.1)
    levels = []
    for change in (0.0, 0.5):
        matched = match_rates(counts, goal, own, theta, thin, add, config=config, depth_change=change)
        coupled = couple_counts(counts, own, matched.rate, theta, thin, add)
        levels.append(np.log(np.asarray(coupled.sum(axis=1))).mean())
    assert levels[1] - levels[0] == pytest.approx(0.5, abs=0.1)


def test_goals_of_other_cells_are_reached_too():
    counts, own, theta, thin, add = reference(n_cells=200, n_genes=600)
    goal = within_reach(reference(n_cells=300, n_genes=600, seed=0), seed=1)[0]
    matched = match_rates(counts, goal, own, theta, thin, add)
    assert matched.converged.all()
    assert np.abs(matched.achieved - goal).mean() < 0.5 * one_count(counts)


def test_many_cells_are_matched_within_the_tolerance():
    counts, own, theta, thin, add = arguments = reference(n_cells=3000, n_genes=15, depth=5000)
    goal, _ = within_reach(arguments)
    for tolerance in (2e-2, 4e-3):
        config = ObservationConfig(match_tolerance=tolerance)
        matched = match_rates(counts, goal, own, theta, thin, add, config=config)
        assert matched.converged.all()
        assert np.abs(matched.achieved - goal).max() <= tolerance


def test_goals_that_do_not_add_up_cannot_make_the_depth_run_away():
    counts, own, theta, thin, add = reference(n_genes=25)
    goal = mean_log1p(counts) + 0.8  # all genes rise, which no composition can
    before = np.log(np.asarray(counts.sum(axis=1))).mean()
    for bound in (0.0, 0.5):
        config = ObservationConfig(match_depth_change=bound)
        matched = match_rates(counts, goal, own, theta, thin, add, config=config)
        coupled = couple_counts(counts, own, matched.rate, theta, thin, add)
        change = np.log(np.asarray(coupled.sum(axis=1))).mean() - before
        assert bound < change < bound + 1.2  # what the goals ask for at the depth allowed
        assert not matched.converged.all()
        np.testing.assert_allclose(matched.achieved, mean_log1p(coupled), atol=1e-12)
        assert matched.n_iterations < config.match_iterations


def test_a_goal_already_reached_leaves_rates_and_counts_bit_for_bit():
    counts, own, theta, thin, add = reference()
    matched = match_rates(counts, mean_log1p(counts), own, theta, thin, add)
    np.testing.assert_array_equal(matched.rate, own)
    assert matched.converged.all()
    coupled = couple_counts(counts, own, matched.rate, theta, thin, add)
    np.testing.assert_array_equal(coupled.toarray(), counts.toarray())


def test_goals_of_zero_or_below_have_rate_zero():
    counts, own, theta, thin, add = reference()
    goal = mean_log1p(counts)
    goal[:5], goal[5:10] = 0, -0.3
    matched = match_rates(counts, goal, own, theta, thin, add)
    assert (matched.rate[:10] == 0).all() and (matched.achieved[:10] == 0).all() and matched.converged[:10].all()
    assert (matched.rate[10:] > 0).all()


def test_genes_that_are_off_turn_on():
    counts, own, theta, thin, add = reference()
    dense = counts.toarray()
    dense[:, :3] = 0
    counts = sp.csr_matrix(dense)
    goal = mean_log1p(counts)
    goal[:3] = [0.5, 2.0, 4.0]
    matched = match_rates(counts, goal, mean_rate(counts), theta, thin, add)
    np.testing.assert_allclose(matched.achieved[:3], goal[:3], atol=2 * one_count(counts))


def test_a_goal_out_of_reach_is_reported_and_harms_no_other_gene_beyond_repair():
    counts, own, theta, thin, add = reference(n_genes=30)
    goal = mean_log1p(counts)
    goal[4] = 12.0  # log1p(CP10k) ends at 9.2
    matched = match_rates(counts, goal, own, theta, thin, add)
    assert not matched.converged[4]
    assert np.isfinite(matched.rate).all() and np.isfinite(matched.achieved).all()
    assert matched.achieved[4] < np.log1p(1e4)


def test_a_higher_goal_has_a_higher_rate():
    counts, own, theta, thin, add = reference(n_cells=400)
    low, high = (match_rates(counts, mean_log1p(counts) * f, own, theta, thin, add).rate for f in (0.9, 1.1))
    assert (low < high).mean() > 0.97


def test_matching_is_deterministic_and_blind_to_the_order_of_cells():
    counts, own, theta, thin, add = reference()
    goal = mean_log1p(counts) * 1.2
    first = match_rates(counts, goal, own, theta, thin, add)
    again = match_rates(counts, goal, own, theta, thin, add)
    np.testing.assert_array_equal(first.rate, again.rate)
    order = np.random.default_rng(0).permutation(counts.shape[0])
    turned = match_rates(counts[order], goal, own, theta, thin[order], add[order])
    np.testing.assert_allclose(turned.achieved, first.achieved, atol=2 * one_count(counts))


@pytest.mark.parametrize("theta", [1e-3, 1e5])
def test_empty_cells_absent_genes_and_huge_counts_give_finite_rates(theta):
    counts, own, _, thin, add = reference(n_cells=40, n_genes=20)
    dense = counts.toarray()
    dense[:3], dense[:, 5], dense[7, 6] = 0, 0, 10**6
    counts = sp.csr_matrix(dense)
    goal = mean_log1p(counts) * np.linspace(0.5, 1.3, 20)
    matched = match_rates(counts, goal, mean_rate(counts), np.full(20, theta), thin, add)
    assert np.isfinite(matched.rate).all() and np.isfinite(matched.achieved).all()
    assert matched.rate[5] == 0


def test_rates_of_a_known_change_are_recovered():
    counts, own, theta, thin, add = arguments = reference(n_cells=800, n_genes=150, depth=1500)
    goal, target = within_reach(arguments)
    matched = match_rates(counts, goal, own, theta, thin, add)
    expressed = np.minimum(own, target) > 5
    assert np.abs(np.log(matched.rate / target)[expressed]).max() < 0.1


def test_arguments_that_do_not_fit_are_refused():
    counts, own, theta, thin, add = reference(n_cells=5, n_genes=4)
    with pytest.raises(DataError, match="no reference cell"):
        match_rates(counts[:0], np.ones(4), own, theta, thin[:0], add[:0])
    with pytest.raises(DataError, match="goal must be finite"):
        match_rates(counts, [1, np.nan, 1, 1], own, theta, thin, add)
    with pytest.raises(DataError, match=r"goal has shape \(3,\)"):
        match_rates(counts, np.ones(3), own, theta, thin, add)
