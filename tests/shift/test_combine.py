import numpy as np
import pytest
from sklearn.isotonic import isotonic_regression

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import EffectGoal, additive_goal, averaged_goal, interpolate_dose, monotone_effects


def test_parts_add_and_never_go_below_zero() -> None:
    control, a, b = np.array([1.0, 0.5, 0.0]), np.array([0.2, -0.4, 0.1]), np.array([0.3, -0.4, -0.2])
    np.testing.assert_allclose(additive_goal(control, [a, b]), [1.5, 0.0, 0.0])
    np.testing.assert_allclose(additive_goal(control, [b, a]), additive_goal(control, [a, b]))
    np.testing.assert_allclose(additive_goal(control, [a, b], weights=[2.0, 0.5]), [1.55, 0.0, 0.1])


def test_two_estimates_of_a_combination_are_averaged() -> None:
    def goal(level: float, sd: float, stretch: float, shape: tuple[int, int] = (2, 3)) -> EffectGoal:
        whole = np.full(shape, level)
        return EffectGoal(whole, np.full(shape, sd), 0 * whole, np.full(2, stretch), np.eye(2), np.array([True, False]))

    both = averaged_goal(goal(1.0, 0.1, 1.0), goal(2.0, 0.3, 1.5))
    np.testing.assert_allclose(both.goal, 1.5)
    np.testing.assert_allclose(both.sd, 0.2)
    assert (both.stretch == 1.0).all()
    with pytest.raises(DataError, match=r"\(2, 3\) and \(2, 4\)"):
        averaged_goal(goal(1.0, 0.1, 1.0), goal(1.0, 0.1, 1.0, (2, 4)))


def test_zero_weights_return_control() -> None:
    control = np.array([[1.0, 0.0], [0.3, 2.0]])
    np.testing.assert_array_equal(additive_goal(control, [np.ones((2, 2))], weights=[0.0]), control)


def test_part_counts_are_checked() -> None:
    with pytest.raises(DataError, match="at least one part"):
        additive_goal(np.ones(2), [])
    with pytest.raises(DataError, match="1 weights for 2 parts"):
        additive_goal(np.ones(2), [np.ones(2)] * 2, weights=[1.0])


def test_dose_curve_passes_through_zero_and_the_observed_doses() -> None:
    doses, deltas = [10.0, 1.0, 100.0], np.array([[2.0, -1.0], [1.0, 0.0], [2.5, -3.0]])
    for dose, delta in zip(doses, deltas, strict=True):
        np.testing.assert_allclose(interpolate_dose(doses, deltas, dose)[0], delta)
    np.testing.assert_array_equal(interpolate_dose(doses, deltas, 0.0)[0], [0.0, 0.0])
    between = np.expm1((np.log1p(1.0) + np.log1p(10.0)) / 2)
    np.testing.assert_allclose(interpolate_dose(doses, deltas, between)[0], [1.5, -0.5])
    below = np.expm1(np.log1p(1.0) / 4)
    np.testing.assert_allclose(interpolate_dose(doses, deltas, below)[0], [0.25, 0.0])


def test_beyond_the_largest_dose_it_is_flat_and_says_so() -> None:
    delta, extrapolated = interpolate_dose([1.0, 3.0], [[1.0], [2.0]], 50.0)
    np.testing.assert_allclose(delta, [2.0])
    assert extrapolated
    assert not interpolate_dose([1.0, 3.0], [[1.0], [2.0]], 3.0)[1]
    assert not interpolate_dose([1.0, 3.0], [[1.0], [2.0]], 0.1)[1]


def test_missing_entries_stay_missing_only_where_they_are() -> None:
    delta, _ = interpolate_dose([1.0, 3.0], [[1.0, np.nan], [2.0, np.nan]], 2.0)
    assert np.isfinite(delta[0]) and np.isnan(delta[1])


@pytest.mark.parametrize(
    ("doses", "dose", "message"),
    [
        ([1.0, 1.0], 1.0, "distinct"),
        ([0.0, 1.0], 1.0, "positive"),
        ([np.nan, 1.0], 1.0, "finite"),
        ([1.0, 2.0], -1.0, "dose is -1.0"),
        ([1.0, 2.0], np.nan, "dose is nan"),
        ([1.0], 1.0, r"\(1,\) and deltas \(2, 3\)"),
    ],
)
def test_bad_doses_are_refused(doses, dose, message) -> None:
    with pytest.raises(DataError, match=message):
        interpolate_dose(doses, np.ones((2, 3)), dose)


def test_curves_within_their_noise_become_the_nearer_isotonic_regression_from_zero() -> None:
    rng = np.random.default_rng(0)
    deltas, sd = rng.normal(size=(5, 40)), rng.uniform(2.0, 4.0, (5, 40))  # no misfit is beyond the noise
    found = monotone_effects([1, 2, 3, 4, 5], deltas, sd)
    for gene in range(40):
        y, weight = deltas[:, gene], 1 / sd[:, gene] ** 2
        up = isotonic_regression(y, sample_weight=weight, y_min=0.0)
        down = isotonic_regression(y, sample_weight=weight, y_max=0.0, increasing=False)
        nearer = min((up, down), key=lambda curve, y=y, weight=weight: (weight * (y - curve) ** 2).sum())
        np.testing.assert_allclose(found[:, gene], nearer, atol=1e-12)


def test_monotone_curves_and_curves_that_turn_stay_and_doses_may_come_in_any_order() -> None:
    deltas = np.array([[0.1, -0.2, 1.0, 0.10], [0.3, -0.2, 2.0, 0.08], [0.9, -0.7, 0.0, 0.30]])
    found = monotone_effects([1, 10, 100], deltas, np.full((3, 4), 0.05))
    np.testing.assert_allclose(found[:, :3], deltas[:, :3])
    np.testing.assert_allclose(found[:, 3], [0.09, 0.09, 0.30])
    mixed = monotone_effects([100, 1, 10], deltas[[2, 0, 1]], np.full((3, 4), 0.05))
    np.testing.assert_array_equal(mixed, found[[2, 0, 1]])


def test_noisy_doses_come_nearer_to_a_monotone_truth() -> None:
    rng = np.random.default_rng(1)
    truth = np.outer([0.1, 0.3, 0.6, 0.7], rng.normal(size=300))
    noisy = truth + 0.2 * rng.normal(size=truth.shape)
    found = monotone_effects([1, 2, 4, 8], noisy, np.full(truth.shape, 0.2))
    assert np.linalg.norm(found - truth) < 0.85 * np.linalg.norm(noisy - truth)
