from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe import perturbed_dispersion, residual_dispersion, split_dispersion

WIDE = ObservationConfig(dispersion_bounds=(1e-6, 1e6))


def negative_binomial(rng, n, mean, theta):
    depth = rng.lognormal(0, 0.5, (n, 1))
    return sp.csr_matrix(rng.poisson(depth * mean * rng.gamma(theta, 1 / theta, (n, len(mean)))))


def test_dispersion_is_recovered_whatever_the_depths():
    rng = np.random.default_rng(0)
    theta = np.repeat([0.5, 2.0, 8.0], 40)
    groups = [negative_binomial(rng, n, np.full(120, mean), theta) for n, mean in ((800, 4.0), (500, 9.0))]
    ratio = np.log(perturbed_dispersion(groups, [1.0, 3.0]) / theta).reshape(3, 40)
    assert np.abs(np.median(ratio, axis=1)).max() < 0.1
    assert ratio.std() < 0.3


def test_moments_are_unbiased_in_small_groups():
    rng = np.random.default_rng(1)
    groups = [negative_binomial(rng, 8, np.full(50, 5.0), np.full(50, 2.0)) for _ in range(200)]
    pooled = ObservationConfig(dispersion_prior_weight=1e-12, dispersion_bounds=(1e-6, 1e6))
    moments = [perturbed_dispersion([group], [1.0], pooled) for group in groups]
    assert perturbed_dispersion(groups, np.ones(200), pooled).mean() == pytest.approx(2.0, rel=0.35)
    assert np.isfinite(moments).all()


def test_cells_without_counts_change_nothing():
    rng = np.random.default_rng(2)
    group = negative_binomial(rng, 200, np.full(30, 3.0), np.full(30, 1.0))
    padded = sp.vstack([group, sp.csr_matrix((150, 30))]).tocsr()
    np.testing.assert_allclose(
        perturbed_dispersion([padded], [1.0], WIDE), perturbed_dispersion([group], [1.0], WIDE), rtol=0.1
    )


def test_absent_genes_and_single_cells_get_the_prior():
    rng = np.random.default_rng(3)
    group = negative_binomial(rng, 50, np.array([4.0, 0.0]), np.ones(2))
    assert perturbed_dispersion([group], [1.0])[1] == pytest.approx(5.0)
    np.testing.assert_allclose(perturbed_dispersion([group[:1]], [1.0]), 5.0)


def test_only_the_ratio_of_weights_matters_and_bounds_hold():
    rng = np.random.default_rng(4)
    groups = [negative_binomial(rng, 100, np.full(20, 3.0), np.full(20, theta)) for theta in (0.1, 100.0)]
    np.testing.assert_allclose(perturbed_dispersion(groups, [1.0, 2.0]), perturbed_dispersion(groups, [10.0, 20.0]))
    np.testing.assert_array_equal(perturbed_dispersion(groups, [1.0, 0.0]), perturbed_dispersion(groups[:1], [1.0]))
    both = np.concatenate([perturbed_dispersion([group], [1.0]) for group in groups])
    assert both.min() >= 0.3 and both.max() <= 50.0


@pytest.mark.parametrize(
    ("shapes", "weights", "message"),
    [
        ([], [], "The 0 groups have these numbers of genes"),
        ([(3, 2), (3, 4)], [1, 1], r"numbers of genes: \[2, 4\]"),
        ([(3, 2)], [1, 1], "weights has shape"),
        ([(3, 2)], [-1], "weights must be finite and >= 0"),
        ([(3, 2)], [0], "All weights are zero"),
    ],
)
def test_groups_that_do_not_fit_are_refused(shapes, weights, message):
    with pytest.raises(DataError, match=message):
        perturbed_dispersion([sp.csr_matrix(shape) for shape in shapes], weights)


def test_residual_dispersion_restores_the_variance():
    theta, cv2, mean = np.array([0.5, 1.0, 2.0]), np.array([0.3, 0.1, 0.0]), 4.0
    left = residual_dispersion(theta, cv2)
    total = mean + mean**2 * (1 + cv2) / left + mean**2 * cv2  # law of total variance of NB(mean h, left)
    np.testing.assert_allclose(total, mean + mean**2 / theta)
    assert left[2] == theta[2]


def test_residual_dispersion_stops_at_its_bound():
    assert residual_dispersion([2.0], [0.8])[0] == pytest.approx(50.0)
    with pytest.raises(DataError, match="heterogeneity_cv2 must be finite"):
        residual_dispersion([2.0], [-0.1])
    with pytest.raises(DataError, match="theta must be finite and > 0"):
        residual_dispersion([0.0], [0.1])


def test_differences_between_cells_are_kept_as_far_as_real_cells_differ():
    theta, cv2 = np.array([0.5, 0.5, 2.0, 50.0, 4.0]), np.array([0.3, 9.0, 3.0, 0.4, 0.0])
    share, left = split_dispersion(theta, cv2)
    kept = share**2 * cv2
    np.testing.assert_allclose((1 + kept) / left + kept, 1 / theta)  # the variance is that of real cells
    assert share[0] == share[4] == 1 and left[4] == theta[4]
    assert (share[1:4] < 1).all() and share[3] == 0
    np.testing.assert_allclose(left[1:4], 50.0)
    with pytest.raises(DataError, match="heterogeneity_cv2 must be finite"):
        split_dispersion([2.0], [-0.1])
