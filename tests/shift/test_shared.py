"""The shift that perturbations share, and the factors that evidence allows."""

import numpy as np
import pytest

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift import calibrated_factor, expected_weights, own_gene_fold, shared_shift
from cfmvc_scvi.shift.shared import _factor_within


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


SD = 0.15


def screen(rng, n=21, n_strong=5, n_columns=400):
    """Shifts as measured, and true ones: a common part, and a pathway that only the first perturbations change."""
    pathway = rng.normal(0, 0.6, n_columns) * (rng.random(n_columns) < 0.2)
    strength = np.where(np.arange(n) < n_strong, rng.uniform(0.5, 1.5, n), 0.0)
    own = 0.1 * rng.normal(size=(n, n_columns)) * (rng.random((n, n_columns)) < 0.2)
    truth = 0.1 * rng.normal(size=n_columns) + own + strength[:, None] * pathway
    return truth + SD * rng.normal(size=truth.shape), truth


def left_out(shifts, truth, estimate):
    """Correlation with the truth of each perturbation, estimated from the others."""
    kept = [np.arange(len(shifts)) != number for number in range(len(shifts))]
    return np.array([np.corrcoef(estimate(shifts[k]), aim)[0, 1] for k, aim in zip(kept, truth, strict=True)])


def test_what_is_expected_serves_strong_ones_and_all_as_well_as_the_mean_does(rng):
    variance = np.full(20, SD**2)
    ways = {
        "expected": lambda s: expected_weights(s, variance) @ s,
        "mean": lambda s: s.mean(axis=0),
        "shared": lambda s: shared_shift(s).weights @ s,
    }
    found = {name: np.mean([left_out(*screen(rng), way) for _ in range(4)], axis=0) for name, way in ways.items()}
    strong = {name: values[:5].mean() for name, values in found.items()}
    assert strong["expected"] > strong["mean"] - 0.02
    assert strong["expected"] > strong["shared"] + 0.1
    assert found["expected"].mean() > found["mean"].mean() - 0.02


def test_perturbations_that_do_nothing_do_not_turn_what_is_expected(rng):
    shifts, _ = screen(rng)
    few_cells = 3 * SD * rng.normal(size=(10, shifts.shape[1]))
    noise = np.repeat([SD**2, (3 * SD) ** 2], [21, 10])
    alone = expected_weights(shifts, noise[:21]) @ shifts
    together = np.vstack([shifts, few_cells])
    more = expected_weights(together, noise) @ together
    assert np.corrcoef(alone, more)[0, 1] > 0.97
    assert np.corrcoef(alone, together.mean(axis=0))[0, 1] < 0.9


def test_a_perturbation_of_very_few_cells_is_not_the_axis(rng):
    shifts, truth = screen(rng)
    noise = np.append(np.full(21, SD**2), (20 * SD) ** 2)
    together = np.vstack([shifts, 20 * SD * rng.normal(size=shifts.shape[1])])
    expected, shared = expected_weights(together, noise) @ together, shared_shift(together).weights @ together
    strong, without = (np.corrcoef(each, truth[0])[0, 1] for each in (expected, shared))
    assert strong > without + 0.1


def test_of_unrelated_shifts_hardly_anything_is_expected(rng):
    lengths = []
    for _ in range(10):
        shifts = rng.normal(size=(30, 300))
        lengths.append(np.linalg.norm(expected_weights(shifts, np.full(30, 0.5)) @ shifts) / np.sqrt(300))
    assert np.mean(lengths) < 0.05


def test_equal_shifts_are_expected_as_they_are(rng):
    shifts = np.tile(rng.normal(size=50), (60, 1))  # more than are left out one by one
    np.testing.assert_allclose(expected_weights(shifts, np.ones(60)) @ shifts, shifts[0], atol=1e-6)


def test_the_factor_is_a_posterior_mean(rng):
    """Of one that is uniform in [0, 1] before, by the trapezoidal rule."""
    along, length = rng.normal(0.3, 1.0, 12), rng.uniform(0.5, 1.5, 12)
    factor = along.sum() / length.sum()
    error = np.sqrt(((along - factor * length) ** 2).sum() * 12 / 11) / length.sum()
    grid = np.linspace(0, 1, 20_001)
    density = np.exp(-0.5 * ((grid - factor) / error) ** 2)
    assert _factor_within(along, length) == pytest.approx((grid * density).sum() / density.sum(), rel=1e-3)
    assert _factor_within(2 * length, length) == 1 and _factor_within(-length, length) == 0
    assert _factor_within(np.zeros(3), np.zeros(3)) == 0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_of_too_few_perturbations_nothing_is_expected(rng, n):
    assert not expected_weights(rng.normal(size=(n, 4)), np.ones(n)).any()


def test_nothing_is_expected_where_nothing_happens():
    assert not expected_weights(np.zeros((5, 3)), np.ones(5)).any()


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
    for noise in (np.ones(3), np.zeros(4), np.full(4, np.nan)):
        with pytest.raises(DataError, match="positive number for each of 4"):
            expected_weights(rng.normal(size=(4, 3)), noise)
    broken = rng.normal(size=(4, 3))
    broken[1, 1] = np.nan
    with pytest.raises(NonFiniteError, match="1 perturbations"):
        shared_shift(broken)


@pytest.mark.parametrize(("factor", "expected"), [(1e4, 1.0), (-1e4, 0.0), (2.0, 1.0)])
def test_the_factor_is_within_bounds_however_far_outside_data_are(rng, factor, expected):
    length = rng.random(20) + 1
    along = factor * length + 1e-4 * rng.normal(size=20)
    assert _factor_within(along, length) == pytest.approx(expected, abs=1e-6)
