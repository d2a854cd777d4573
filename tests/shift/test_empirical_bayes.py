from dataclasses import replace

import numpy as np
import pytest

from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift import posterior_level

CONFIG = EffectConfig()


def test_observed_context_without_noise_keeps_its_own_level(profiles) -> None:
    control, _, perturbed, _ = profiles(4, 120)
    none = np.zeros_like(control)
    posterior = posterior_level(control, none, perturbed, none, replace(CONFIG, noise_floor=1e-9))
    np.testing.assert_allclose(posterior.mean, perturbed, atol=1e-5)
    assert posterior.sd.max() < 1e-3


def test_equal_contexts_are_pooled() -> None:
    rng = np.random.default_rng(0)
    n, n_genes = 4, 400
    before, after = rng.gamma(1.0, 0.8, (2, n_genes))
    noise = np.full((n, n_genes), 0.04)
    draws = [level + 0.2 * rng.normal(size=(n, n_genes)) for level in (before, after)]
    draws[1][3] = np.nan
    posterior = posterior_level(draws[0], noise, draws[1], noise, CONFIG)
    pooled = draws[1][:3].mean(axis=0)
    assert np.sqrt(((posterior.mean - pooled) ** 2).mean()) < 0.1
    error = np.sqrt(((posterior.mean - after) ** 2).mean(axis=1))
    alone = np.sqrt(((draws[1][0] - after) ** 2).mean())
    assert (error < 0.75 * alone).all()


def test_no_effect_in_the_seen_contexts_means_none_in_the_unseen(profiles) -> None:
    control, noise, _, _ = profiles(4, 300)
    rng = np.random.default_rng(1)
    perturbed = control + np.sqrt(2 * noise) * rng.normal(size=control.shape)
    perturbed[0] = np.nan
    posterior = posterior_level(control, noise, perturbed, noise, CONFIG)
    assert np.abs(posterior.mean[0] - control[0]).mean() < 0.5 * np.abs(perturbed[1:] - control[1:]).mean()


def test_unseen_context_does_not_read_its_own_row(profiles) -> None:
    control, control_noise, perturbed, perturbed_noise = profiles(4, 80)
    perturbed[1] = np.nan
    first = posterior_level(control, control_noise, perturbed, perturbed_noise, CONFIG)
    perturbed_noise[1] = np.nan
    again = posterior_level(control, control_noise, perturbed, perturbed_noise, CONFIG)
    np.testing.assert_array_equal(first.mean, again.mean)
    assert (first.sd[1] > first.sd[[0, 2, 3]]).mean() > 0.95


def test_more_noise_is_less_certain(profiles) -> None:
    control, control_noise, perturbed, perturbed_noise = profiles(3, 80)
    sure = posterior_level(control, control_noise, perturbed, perturbed_noise, CONFIG)
    unsure = posterior_level(control, control_noise, perturbed, 20 * perturbed_noise, CONFIG)
    assert (unsure.sd > sure.sd).mean() > 0.95
    assert sure.weights.sum() == pytest.approx(1) and (sure.weights > 0).all()


def test_permuting_genes_and_contexts_permutes_the_posterior(profiles) -> None:
    rng = np.random.default_rng(2)
    data = profiles(5, 90)
    data[2][4] = np.nan
    contexts, genes = rng.permutation(5), rng.permutation(90)
    posterior = posterior_level(*data, CONFIG)
    moved = posterior_level(*(values[contexts][:, genes] for values in data), CONFIG)
    np.testing.assert_allclose(moved.mean, posterior.mean[contexts][:, genes], atol=1e-8)
    np.testing.assert_allclose(moved.sd, posterior.sd[contexts][:, genes], atol=1e-7)
    np.testing.assert_allclose(moved.weights, posterior.weights, atol=1e-9)


def test_adding_a_constant_to_a_gene_adds_it_to_the_posterior(profiles) -> None:
    control, control_noise, perturbed, perturbed_noise = profiles(3, 50)
    perturbed[0] = np.nan
    offset = np.random.default_rng(0).normal(0, 5, 50)
    posterior = posterior_level(control, control_noise, perturbed, perturbed_noise, CONFIG)
    moved = posterior_level(control + offset, control_noise, perturbed + offset, perturbed_noise, CONFIG)
    np.testing.assert_allclose(moved.mean, posterior.mean + offset, atol=1e-8)


@pytest.mark.parametrize("n_contexts", [1, 2, 40])
def test_any_number_of_contexts(profiles, n_contexts: int) -> None:
    control, control_noise, perturbed, perturbed_noise = profiles(n_contexts, 12)
    perturbed[4:] = np.nan
    posterior = posterior_level(control, control_noise, perturbed, perturbed_noise, CONFIG)
    assert posterior.mean.shape == posterior.sd.shape == (n_contexts, 12)
    assert np.isfinite(posterior.mean).all() and (posterior.sd > 0).all()


def test_one_context_without_effect_is_shrunk_to_the_mean_of_its_two_levels() -> None:
    rng = np.random.default_rng(0)
    control = rng.gamma(1.0, 0.8, (1, 500))
    noise = np.full_like(control, 0.05)
    observed = control + np.sqrt(0.1) * rng.normal(size=control.shape)
    posterior = posterior_level(control, noise, observed, noise, CONFIG)
    middle = (control + observed) / 2
    assert np.linalg.norm(posterior.mean - middle) < 0.3 * np.linalg.norm(observed - middle)


def test_genes_that_are_zero_everywhere_stay_near_zero() -> None:
    control, perturbed = np.zeros((2, 3, 20))
    noise = np.full((3, 20), 1e-4)
    perturbed[2] = np.nan
    posterior = posterior_level(control, noise, perturbed, noise, CONFIG)
    assert np.abs(posterior.mean).max() < 1e-9 and posterior.sd[:2].max() < 0.02


def test_unobserved_everywhere_is_refused(profiles) -> None:
    control, control_noise, perturbed, perturbed_noise = profiles(3, 10)
    with pytest.raises(DataError, match="none of the 3 contexts"):
        posterior_level(control, control_noise, np.full_like(perturbed, np.nan), perturbed_noise, CONFIG)


def test_bad_input_is_refused(profiles) -> None:
    control, control_noise, perturbed, perturbed_noise = profiles(3, 10)
    with pytest.raises(DataError, match="one shape"):
        posterior_level(control, control_noise, perturbed[:, :9], perturbed_noise, CONFIG)
    control[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="1 values of control are"):
        posterior_level(control, control_noise, perturbed, perturbed_noise, CONFIG)
    perturbed[1, 2:4] = np.inf
    with pytest.raises(NonFiniteError, match="2 values of perturbed are"):
        posterior_level(np.nan_to_num(control), control_noise, perturbed, perturbed_noise, CONFIG)
