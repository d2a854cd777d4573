import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfmvc_scvi.shift import kernel, profile_distances, project_psd, similarity_weights


def test_distances_are_unbiased_by_noise() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4, 3000)) * np.array([0.0, 0.2, 0.4, 0.8])[:, None]
    noise = rng.gamma(2.0, 0.1, truth.shape)
    noisy = truth + np.sqrt(noise) * rng.normal(size=truth.shape)
    true = profile_distances(truth, np.zeros_like(truth))
    np.testing.assert_allclose(true[0], np.linalg.norm(truth - truth[0], axis=1), rtol=1e-10)
    np.testing.assert_allclose(profile_distances(noisy, noise)[0, 2:], true[0, 2:], rtol=0.1)
    assert profile_distances(noisy, 0 * noise)[0, 1] > 2 * true[0, 1]


def test_indistinguishable_profiles_are_apart_by_what_could_be_missed() -> None:
    noise = np.full((2, 50), 0.3)
    distance = profile_distances(np.zeros((2, 50)), noise)
    np.testing.assert_allclose(distance[0, 1], (2 * 50 * 0.6**2) ** 0.25)
    assert distance[0, 0] == 0


def test_weights_follow_the_power_of_relative_distance() -> None:
    weights = similarity_weights(np.array([1.0, 2.0, 4.0]), 2.0)
    np.testing.assert_allclose(weights, np.array([16, 4, 1]) / 21)
    np.testing.assert_allclose(similarity_weights(np.array([5.0, 9.0]), 0.0), 0.5)
    np.testing.assert_allclose(similarity_weights(np.array([0.0, 3.0, 0.0]), 4.0), [0.5, 0, 0.5])


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.25, 0.8, 3.0]))
def test_kernels_are_positive_definite_for_any_distances(seed: int, n: int, length: float) -> None:
    distances = np.random.default_rng(seed).lognormal(0, 1, (n, n))
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    values = kernel(distances, length)
    np.testing.assert_allclose(values, values.T, atol=1e-12)
    assert np.linalg.eigvalsh(values).min() > 0.999e-3
    np.testing.assert_allclose(values, kernel(100 * distances, length), atol=1e-9)


def test_kernel_of_equal_contexts_is_a_kernel_of_ones() -> None:
    np.testing.assert_allclose(kernel(np.zeros((3, 3)), 0.4), np.ones((3, 3)), atol=2e-3)
    np.testing.assert_allclose(kernel(np.zeros((1, 1)), 0.4), [[1.001]])


def test_projection_leaves_a_positive_definite_matrix_and_cuts_negative_eigenvalues() -> None:
    good = np.array([[2.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(project_psd(good), good)
    np.testing.assert_allclose(np.linalg.eigvalsh(project_psd(np.array([[1.0, 3.0], [3.0, 1.0]]), 0.1)), [0.1, 4.0])


@pytest.mark.parametrize("n", [1, 2])
def test_few_contexts(n: int) -> None:
    distances = profile_distances(np.arange(n * 3.0).reshape(n, 3), np.zeros((n, 3)))
    assert distances.shape == (n, n) and kernel(distances, 0.8).shape == (n, n)
