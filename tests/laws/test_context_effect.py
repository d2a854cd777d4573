"""The empirical-Bayes effect over contexts is what its formula says, component by component, in float64."""

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.shift import kernel, linear_kernel, posterior_level, profile_distances

SMALL = EffectConfig(
    control_scales=(0.1, 0.5),
    effect_scales=(0.0, 0.2, 0.8),
    shrinkages=(0.0, 0.5),
    sharings=(0.0, 0.7),
    effect_locality=0.7,
    em_iterations=15,
)


def brute_force(control, control_noise, perturbed, perturbed_noise, config, distances=None):
    """The joint Gaussian of all levels written out per component and gene, conditioned by its textbook formula."""
    n, n_genes = control.shape
    seen = np.flatnonzero(~np.isnan(perturbed[:, 0]))
    distances = profile_distances(control, control_noise) if distances is None else distances
    center = control.mean(0)
    data = np.concatenate([control, perturbed[seen]]) - center
    noise = np.concatenate([control_noise, perturbed_noise[seen]]) + config.noise_floor
    rows = np.concatenate([np.arange(n), n + seen])
    with_effect = [(s, rho) for s, rho in itertools.product(config.effect_scales, config.sharings) if s > 0]
    linear_share = (n - 2) / n if n > 2 else 0.0
    local = linear_share * linear_kernel(distances) + (1 - linear_share) * kernel(distances, config.effect_locality)
    components = []
    for t in config.control_scales:
        components += [(t, kappa, *effect) for kappa in config.shrinkages for effect in with_effect]
        components += [(t, 0.0, 0.0, 0.0)] if 0 in config.effect_scales else []
    likelihood, mean, second = (np.empty((len(components), *shape)) for shape in [(n_genes,)] + 2 * [(n, n_genes)])
    for c, (t, kappa, s, rho) in enumerate(components):
        b = t**2 * kernel(distances, config.control_locality)
        e = s**2 * (rho * np.ones((n, n)) + (1 - rho) * local)
        q = 1 - kappa
        joint = config.mean_scale**2 + np.block([[b, q * b], [q * b, q**2 * b + e]])
        for g in range(n_genes):
            total = joint[np.ix_(rows, rows)] + np.diag(noise[:, g])
            likelihood[c, g] = multivariate_normal(np.zeros(len(rows)), total).logpdf(data[:, g])
            gain = np.linalg.solve(total, joint[rows, n:]).T
            mean[c, :, g] = gain @ data[:, g]
            second[c, :, g] = mean[c, :, g] ** 2 + np.diag(joint[n:, n:] - gain @ joint[rows, n:])
    weights = np.full(len(components), 1 / len(components))
    for _ in range(config.em_iterations):
        share = weights[:, None] * np.exp(likelihood - likelihood.max(0))
        share /= share.sum(0)
        weights = share.sum(1) + config.em_prior
        weights /= weights.sum()
    share = weights[:, None] * np.exp(likelihood - likelihood.max(0))
    share = (share / share.sum(0))[:, None]
    first = (share * mean).sum(0)
    return first + center, np.sqrt((share * second).sum(0) - first**2), weights


def draw(n: int, n_genes: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    level = rng.gamma(1.0, 0.8, n_genes) + rng.normal(0, 0.3, (n, n_genes))
    after = level + rng.normal(0, 0.5, n_genes) + rng.normal(0, 0.2, (n, n_genes))
    return level, rng.gamma(2.0, 0.01, (n, n_genes)), after, rng.gamma(2.0, 0.01, (n, n_genes))


@pytest.mark.parametrize(("n", "unseen"), [(1, []), (2, []), (2, [1]), (4, [0]), (4, [1, 2]), (3, [0, 2])])
def test_posterior_is_that_of_the_plain_formula(n: int, unseen: list[int]) -> None:
    control, control_noise, perturbed, perturbed_noise = draw(n, 6, seed=n)
    perturbed[unseen] = np.nan
    mean, sd, weights = brute_force(control, control_noise, perturbed, perturbed_noise, SMALL)
    found = posterior_level(control, control_noise, perturbed, perturbed_noise, SMALL)
    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    np.testing.assert_allclose(found.sd, sd, atol=1e-7)
    np.testing.assert_allclose(found.weights, weights, atol=1e-8)


def test_distances_may_be_given_in_any_unit() -> None:
    data = draw(4, 5, seed=9)
    data[2][3] = np.nan
    points = np.random.default_rng(0).normal(size=(4, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    mean, sd, _ = brute_force(*data, SMALL, distances)
    found = posterior_level(*data, SMALL, 7 * distances)
    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    np.testing.assert_allclose(found.sd, sd, atol=1e-7)


def test_chunks_of_genes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw(3, 40, seed=5)
    data[2][0] = np.nan
    whole = posterior_level(*data, SMALL)
    monkeypatch.setattr("cfmvc_scvi.shift.empirical_bayes._CHUNK_ELEMENTS", 700)
    parts = posterior_level(*data, SMALL)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-10)
    np.testing.assert_allclose(parts.sd, whole.sd, atol=1e-9)
