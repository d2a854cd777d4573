import numpy as np
import pytest

from cfmvc_scvi.benchmark.baselines._coupling import bulk_rate, match_mean, moment_dispersion, superpose
from cfmvc_scvi.metrics import log_normalize


@pytest.fixture
def counts(rng):
    profile = rng.gamma(1.0, 1.0, 80)
    return rng.poisson(rng.lognormal(6.5, 0.3, (150, 1)) * profile / profile.sum()).astype(float)


def test_bulk_rate_closed_form():
    np.testing.assert_allclose(bulk_rate(np.array([[1.0, 3.0], [0.0, 4.0]])), [1250.0, 8750.0])
    np.testing.assert_array_equal(bulk_rate(np.zeros((2, 2))), [0.0, 0.0])


def test_moment_dispersion_recovers_theta(rng):
    theta = np.array([0.5, 2.0, 8.0])
    genes = rng.poisson(rng.gamma(theta, 20 / theta, (20000, 3))).astype(float)
    filler = np.full((20000, 1), 10000.0)  # nearly all of the depth, so that depth is constant
    np.testing.assert_allclose(moment_dispersion(np.hstack([genes, filler]))[:3], theta, rtol=0.1)
    assert moment_dispersion(np.hstack([genes, filler]), bounds=(1.0, 4.0))[0] == 1.0


def test_superpose_has_the_mean_and_keeps_what_does_not_change(counts, rng):
    fold = np.ones(80)
    fold[:20], fold[20:40] = 0.3, 2.5
    changed = superpose(counts, fold, 1.0, rng)
    np.testing.assert_array_equal(changed[:, 40:], counts[:, 40:])
    assert (changed[:, :20] <= counts[:, :20]).all()
    assert (changed[:, 20:40] >= counts[:, 20:40]).all()
    assert changed[:, :20].sum() / counts[:, :20].sum() == pytest.approx(0.3, rel=0.05)
    assert changed[:, 20:40].sum() / counts[:, 20:40].sum() == pytest.approx(2.5, rel=0.1)


def test_match_mean_reaches_a_consistent_goal(counts, rng):
    fold = rng.lognormal(0, 0.5, 80)
    goal = log_normalize(superpose(counts, fold / fold.mean(), 5.0, rng)).mean(axis=0)
    matched = match_mean(counts, goal, np.full(80, 5.0), rng)
    before = np.abs(log_normalize(counts).mean(axis=0) - goal)
    after = np.abs(log_normalize(matched).mean(axis=0) - goal)
    assert np.median(after) < 0.03
    assert after.mean() < 0.15 * before.mean()
    assert (matched == np.rint(matched)).all() and (matched >= 0).all()


def test_match_mean_of_the_own_mean_changes_next_to_nothing(counts, rng):
    matched = match_mean(counts, log_normalize(counts).mean(axis=0), np.ones(80), rng)
    assert (matched == counts).mean() > 0.95


def test_matched_counts_stay_coupled_to_the_cell(counts, rng):
    goal = log_normalize(superpose(counts, np.repeat([1.5, 0.6], 40), 5.0, rng)).mean(axis=0)
    matched = match_mean(counts, goal, np.full(80, 5.0), rng)
    residuals = [x - x.mean(axis=0) for x in (matched, counts, rng.permutation(counts))]
    own, other = (np.corrcoef(residuals[0].ravel(), x.ravel())[0, 1] for x in residuals[1:])
    assert own > 0.7
    assert other < 0.6 * own
