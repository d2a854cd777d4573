import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfmvc_scvi.shift import (
    context_kernel,
    kernel,
    linear_kernel,
    profile_distances,
    project_psd,
    similarity_weights,
)


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


def test_linear_kernel_is_the_gram_matrix_of_centred_points() -> None:
    points = np.random.default_rng(0).normal(size=(6, 3))
    centred = points - points.mean(axis=0)
    gram = centred @ centred.T
    found = linear_kernel(np.linalg.norm(points[:, None] - points, axis=2))
    np.testing.assert_allclose(found, gram * 6 / np.trace(gram) + 1e-3 * np.eye(6), atol=1e-9)


def test_linear_kernel_knows_no_unit_and_survives_equal_contexts() -> None:
    distances = np.abs(np.subtract.outer([0.0, 1.0, 4.0], [0.0, 1.0, 4.0]))
    np.testing.assert_allclose(linear_kernel(50 * distances), linear_kernel(distances))
    np.testing.assert_array_equal(linear_kernel(np.zeros((3, 3))), 1.0)


def test_an_effect_that_is_linear_in_the_profile_goes_on_beyond_the_contexts_seen() -> None:
    place = np.array([0.0, 1.0, 2.0, 3.0, 4.5])
    distances = np.abs(np.subtract.outer(place, place))
    kernels = {"both": context_kernel(distances, 1.5), "local": kernel(distances, 1.5)}
    beyond = {}
    for name, matrix in kernels.items():
        covariance = 1.0 + 4 * matrix
        gain = np.linalg.solve(covariance[:4, :4] + 1e-3 * np.eye(4), covariance[:4, 4])
        beyond[name] = gain @ place[:4]
    assert abs(beyond["both"] - 4.5) < 0.5 * abs(beyond["local"] - 4.5)


def test_between_two_contexts_there_is_no_line() -> None:
    distances = np.array([[0.0, 2.0], [2.0, 0.0]])
    np.testing.assert_array_equal(context_kernel(distances, 1.5), kernel(distances, 1.5))
