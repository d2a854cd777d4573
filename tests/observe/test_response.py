"""The filter of responses: it recovers planted signals from noise, and touches nothing where there is none."""

import numpy as np
import pytest

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe import ResponseFilter, fit_response_filter, redrawn_counts

N_CELLS, N_GENES = 1000, 30


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def planted(rng: np.random.Generator, noise: float) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """True changes of rank 2, changes observed with isotropic noise, and replicates with as much of it again."""
    truth = 0.3 + rng.normal(size=(N_CELLS, 2)) @ rng.normal(size=(2, N_GENES)) / 2
    observed = truth + noise * rng.normal(size=truth.shape)
    replicates = [observed + noise * rng.normal(size=truth.shape) for _ in range(4)]
    return truth, observed, replicates


def filtered(response: ResponseFilter, change: np.ndarray, level: float = 1000.0) -> np.ndarray:
    """Changes after the filter, of cells at a level where the totals and zero do not interfere."""
    before = np.full(change.shape, level)
    after = np.expm1(np.log1p(before) + change)
    result = np.log1p(response(before, after)) - np.log1p(before)
    return result - (result - change).mean(axis=1, keepdims=True)  # each cell is scaled to the total of `after`


def test_it_is_the_wiener_filter_of_the_planted_signal(rng: np.random.Generator) -> None:
    truth, observed, replicates = planted(rng, 0.8)
    config = ObservationConfig(response_axes=N_GENES)
    response = fit_response_filter(observed, replicates, config)
    covariance = np.cov(truth.T, bias=True)
    best = np.linalg.solve(covariance + 0.64 * np.eye(N_GENES), covariance)
    gain = response.axes @ response.gain @ response.axes.T
    signal = np.linalg.svd(truth - truth.mean(axis=0), full_matrices=False)[2][:2].T
    np.testing.assert_allclose(signal.T @ gain @ signal, signal.T @ best @ signal, atol=0.06)
    centred = observed - observed.mean(axis=0)
    error, raw = (np.linalg.norm(x + response.mean - truth) for x in (centred @ gain, centred))
    assert error < 1.15 * np.linalg.norm(centred @ best + response.mean - truth) and error < 0.5 * raw


def test_without_noise_nothing_changes(rng: np.random.Generator) -> None:
    truth, _, _ = planted(rng, 0.0)
    response = fit_response_filter(truth, [truth, truth])
    before = np.exp(rng.normal(3, 1, truth.shape))
    after = np.expm1(np.log1p(before) + np.abs(truth))
    noiseless = fit_response_filter(np.log1p(after) - np.log1p(before), [np.log1p(after) - np.log1p(before)])
    assert np.allclose(response.gain, np.eye(2), atol=1e-6)
    assert np.allclose(noiseless.gain, np.eye(len(noiseless.gain)), atol=1e-6)
    np.testing.assert_allclose(filtered(response, truth), truth, atol=1e-6)


@pytest.mark.parametrize("n_genes", [5, 40, 900])
def test_noise_alone_leaves_the_mean_change(rng: np.random.Generator, n_genes: int) -> None:
    decoder = rng.normal(size=(4, n_genes))  # few latents, as the decoder has, however many genes
    change, *more = (scale * rng.normal(size=(N_CELLS, 4)) @ decoder for scale in (1, 2, 2))
    response = fit_response_filter(0.5 + change, [0.5 + change + noise for noise in more])
    assert np.abs(response.gain).max() < 1e-9
    result = np.log1p(response(np.full(change.shape, 50.0), np.full(change.shape, 80.0)))
    assert np.ptp(result, axis=0).max() < 1e-9


@pytest.mark.parametrize(("n_cells", "n_axes"), [(N_CELLS, 20), (24, 6)])
def test_it_never_lengthens_and_its_axes_are_orthonormal(rng: np.random.Generator, n_cells: int, n_axes: int) -> None:
    _, observed, replicates = planted(rng, 0.5)
    observed = observed[:n_cells]
    response = fit_response_filter(observed, [again[:n_cells] for again in replicates])
    assert response.axes.shape == (N_GENES, n_axes)
    np.testing.assert_allclose(response.axes.T @ response.axes, np.eye(n_axes), atol=1e-9)
    deviation = (observed - response.mean) @ response.axes
    root = np.linalg.cholesky(deviation.T @ deviation / len(deviation))
    whitened = np.linalg.solve(root, response.gain.T @ root)
    assert np.linalg.eigvals(whitened).real.max() <= 1 + 1e-9 and np.linalg.eigvals(whitened).real.min() >= -1e-9
    kept, all_of_it = (np.linalg.norm(x, axis=0) for x in (deviation @ response.gain, deviation))
    assert (kept <= all_of_it * (1 + 1e-9)).all()


def test_a_cell_depends_on_itself_alone_and_keeps_its_total(rng: np.random.Generator) -> None:
    _, observed, replicates = planted(rng, 0.5)
    response = fit_response_filter(observed, replicates)
    before = np.exp(rng.normal(2, 1, observed.shape))
    after = np.maximum(np.expm1(np.log1p(before) + observed), 0)
    together = response(before, after)
    apart = np.vstack([response(before[[cell]], after[[cell]]) for cell in range(20)])
    np.testing.assert_allclose(apart, together[:20], rtol=1e-12)
    np.testing.assert_allclose(together.sum(axis=1), after.sum(axis=1), rtol=1e-12)
    assert together.dtype == np.float64 and (together >= 0).all()


def test_few_cells_equal_cells_and_empty_cells_are_finite(rng: np.random.Generator) -> None:
    change = rng.normal(size=(3, 8))
    for values in (change, np.repeat(change[:1], 50, axis=0), np.zeros((50, 8))):
        response = fit_response_filter(values, [values])
        assert response.axes.shape == (8, 0)
        assert np.isfinite(response(np.ones(values.shape), np.ones(values.shape))).all()
        assert (response(np.zeros((2, 8)), np.zeros((2, 8))) == 0).all()


def test_replicates_are_looked_at_once_in_any_order(rng: np.random.Generator) -> None:
    _, observed, replicates = planted(rng, 0.5)
    first, second = fit_response_filter(observed, iter(replicates)), fit_response_filter(observed, replicates[::-1])
    np.testing.assert_allclose(first.gain, second.gain, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "replicates", "words"),
    [
        (np.ones((4, 3)), [], "no replicate"),
        (np.ones((0, 3)), [np.ones((0, 3))], "no cell"),
        (np.ones((4, 3)), [np.ones((4, 3)), np.ones((4, 2))], r"replicate has shape \(4, 2\).*\(4, 3\)"),
        (np.ones(4), [np.ones(4)], r"\(cells, genes\)"),
        (np.full((4, 3), np.nan), [np.ones((4, 3))], "change must be finite; 12 of 12"),
        (np.ones((4, 3)), [np.full((4, 3), np.inf)], "replicate must be finite; 12 of 12"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(change: np.ndarray, replicates: list[np.ndarray], words: str) -> None:
    with pytest.raises(DataError, match=words):
        fit_response_filter(change, replicates)


def test_redrawn_counts_have_the_moments_of_the_negative_binomial(rng: np.random.Generator) -> None:
    rate, theta, n_cells = np.array([0.0, 2.0, 30.0, 900.0]), np.array([1.0, 0.5, 3.0, 20.0]), 20_000
    uniforms = rng.random((n_cells, 4))
    counts = redrawn_counts(np.tile(rate, (n_cells, 1)), np.full(n_cells, 2000.0), theta, uniforms).toarray()
    mean = rate * 0.2
    assert (counts == np.rint(counts)).all() and (counts[:, 0] == 0).all()
    np.testing.assert_allclose(counts.mean(axis=0), mean, rtol=0.05)
    np.testing.assert_allclose(counts.var(axis=0), mean + mean**2 / theta, rtol=0.1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"rate": -np.ones((2, 3))}, "rate"), ({"theta": np.zeros(3)}, "theta"), ({"depth": np.ones(3)}, "depth")],
)
def test_redrawn_counts_check_their_arguments(changed: dict[str, np.ndarray], words: str) -> None:
    asked = {"rate": np.ones((2, 3)), "depth": np.ones(2), "theta": np.ones(3), "uniforms": np.full((2, 3), 0.5)}
    with pytest.raises(DataError, match=words):
        redrawn_counts(**(asked | changed))
