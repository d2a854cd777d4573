"""The shift that perturbations share, and the factors that evidence allows."""

import numpy as np
import pytest

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift import calibrated_factor, own_gene_fold, shared_shift


def test_equal_shifts_are_shared_in_full():
    shift = np.linspace(-1, 1, 20)
    shared = shared_shift(np.tile(shift, (5, 1)))
    assert shared.factor == pytest.approx(1.0)
    np.testing.assert_allclose(shared.weights @ np.tile(shift, (5, 1)), shift)


def test_centre_minimises_the_sum_of_distances(rng):
    shifts = 1 + rng.normal(size=(9, 30)) * rng.gamma(1, 1, (9, 1))
    shared = shared_shift(shifts)
    weights = shared.weights / shared.factor

    def cost(centre):
        return np.linalg.norm(shifts - centre, axis=1).sum()

    centre = weights @ shifts
    nudged = [cost(centre + 0.01 * rng.normal(size=30)) for _ in range(20)]
    assert cost(centre) < min(nudged)


def test_one_strong_perturbation_does_not_move_the_centre(rng):
    shared, noise = rng.normal(size=200), 0.1 * rng.normal(size=(9, 200))
    shifts = 0.3 * shared + noise
    shifts[0] += 5 * rng.normal(size=200)
    estimate = shared_shift(shifts)
    centre = estimate.weights @ shifts / estimate.factor
    assert np.abs(centre - 0.3 * shared).mean() < 0.3 * np.abs(shifts.mean(axis=0) - 0.3 * shared).mean()


def test_unrelated_shifts_share_nothing(rng):
    factors = [shared_shift(rng.normal(size=(8, 300))).factor for _ in range(20)]
    assert np.mean(factors) < 0.05


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_perturbations_share_nothing(rng, n):
    shared = shared_shift(rng.normal(size=(n, 4)))
    assert shared.factor == 0
    assert shared.weights.shape == (n,)
    assert not shared.weights.any()


def test_shifts_of_zero_are_no_problem():
    assert shared_shift(np.zeros((4, 3))).factor == 0


def test_factor_is_least_squares_where_it_is_certain(rng):
    truth = rng.normal(size=(200, 50))
    assert calibrated_factor(2 * truth, truth) == pytest.approx(0.5)
    assert calibrated_factor(0.5 * truth, truth) == 1.0
    assert calibrated_factor(-truth, truth) == 0.0


def test_own_gene_fold_recovers_a_knock_down_and_ignores_chance(rng):
    before = rng.uniform(2, 5, 12)
    after = np.log((np.exp(before) - 0.5) * 0.4 + 0.5)
    assert own_gene_fold(before, after) == pytest.approx(np.log(0.4))
    chance = [own_gene_fold(before, before + rng.normal(0, 0.5, 12)) for _ in range(50)]
    assert np.abs(np.mean(chance)) < 0.1
    assert own_gene_fold(before[:2], after[:2]) == 0


def test_bad_input_is_named(rng):
    with pytest.raises(DataError, match="shape"):
        shared_shift(np.zeros(3))
    broken = rng.normal(size=(4, 3))
    broken[1, 1] = np.nan
    with pytest.raises(NonFiniteError, match="1 perturbations"):
        shared_shift(broken)
