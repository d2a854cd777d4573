import numpy as np
import ot
import pytest
from scipy.stats import energy_distance as scipy_energy_distance
from sklearn.metrics.pairwise import rbf_kernel

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.metrics import (
    CrossFittedPCA,
    DistanceRatio,
    energy_distance,
    median_bandwidths,
    normalised_distance,
    normalised_energy,
    normalised_mmd,
    rbf_mmd2,
)


@pytest.fixture
def cells(rng):
    return rng.normal(0, 1, (30, 5)), rng.normal(0.4, 1.5, (20, 5))


@pytest.fixture
def groups(rng):
    """Control cells and perturbed cells, 40 genes of which the first ten respond."""
    control, truth = rng.normal(2, 1, (80, 40)), rng.normal(2, 1, (90, 40))
    truth[:, :10] += 2.0
    return truth, control


def test_energy_distance_from_the_pairwise_distances_of_pot(cells):
    x, y = cells
    between, of_x, of_y = (ot.dist(a, b, metric="euclidean") for a, b in ((x, y), (x, x), (y, y)))
    within = of_x.sum() / (30 * 29) + of_y.sum() / (20 * 19)
    assert energy_distance(x, y) == pytest.approx(2 * between.mean() - within, abs=1e-12)


def test_energy_distance_is_that_of_scipy_but_for_the_pairs_of_a_cell_with_itself(rng):
    x, y = rng.normal(size=25), rng.normal(1, 2, size=40)
    mean_of_x, mean_of_y = (np.abs(v[:, None] - v).mean() for v in (x, y))
    biased = scipy_energy_distance(x, y) ** 2
    correction = mean_of_x / 24 + mean_of_y / 39
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(biased - correction, abs=1e-12)


def test_mmd_from_the_kernels_of_sklearn(cells):
    x, y = cells
    expected = 0.0
    for h in (0.5, 2.0):
        k_x, k_y, k_xy = (rbf_kernel(a, b, gamma=0.5 / h**2) for a, b in ((x, x), (y, y), (x, y)))
        expected += ((k_x.sum() - 30) / (30 * 29) + (k_y.sum() - 20) / (20 * 19) - 2 * k_xy.mean()) / 2
    assert rbf_mmd2(x, y, [0.5, 2.0]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_chunks_change_nothing(cells, chunk_size):
    x, y = cells
    assert energy_distance(x, y, chunk_size) == pytest.approx(energy_distance(x, y), abs=1e-12)
    assert rbf_mmd2(x, y, 1.0, chunk_size) == pytest.approx(rbf_mmd2(x, y, 1.0), abs=1e-12)


def test_bandwidths_are_multiples_of_the_median_distance():
    np.testing.assert_allclose(median_bandwidths([[0.0], [1.0], [3.0]], factors=(0.5, 1)), [1.0, 2.0])
    with pytest.raises(DataError, match="More than half"):
        median_bandwidths(np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: energy_distance(x[:1], y), "x has 1 cells; at least 2"),
        (lambda x, y: energy_distance(x, y[:, :2]), "'x': 5, 'y': 2"),
        (lambda x, y: energy_distance(x, y, chunk_size=0), "chunk_size is 0"),
        (lambda x, y: rbf_mmd2(x, y, [1.0, 0.0]), "positive lengths"),
        (lambda x, y: CrossFittedPCA.fit(x[:3], y, np.random.default_rng(0)), "truth has 3 cells; at least 4"),
        (lambda x, y: CrossFittedPCA.fit(x, y, np.random.default_rng(0), n_components=0), "n_components is 0"),
    ],
)
def test_bad_input_is_refused(cells, call, message):
    with pytest.raises(DataError, match=message):
        call(*cells)


def test_nan_is_refused(cells):
    x, y = cells
    x[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"x has 1 non-finite values, the first at \(3, 1\)"):
        energy_distance(x, y)


def test_pca_never_sees_the_cells_it_scores(groups):
    truth, control = groups
    spaces = CrossFittedPCA.fit(truth, control, np.random.default_rng(3), n_components=5)
    seen = []
    for half in spaces.halves:
        held_out = [
            np.flatnonzero((np.abs(half.pca.transform(real)[:, None] - scored[None]).max(-1) < 1e-9).any(1))
            for real, scored in ((truth, half.truth), (control, half.control))
        ]
        fitted = np.vstack([np.delete(truth, held_out[0], 0), np.delete(control, held_out[1], 0)])
        np.testing.assert_allclose(half.pca.mean_, fitted.mean(0))
        seen.append(held_out)
    assert sorted([*seen[0][0], *seen[1][0]]) == list(range(90))
    assert sorted([*seen[0][1], *seen[1][1]]) == list(range(80))


def test_components_are_at_most_a_quarter_of_the_fitted_cells(groups):
    truth, control = groups
    spaces = CrossFittedPCA.fit(truth[:20], control[:20], np.random.default_rng(0), n_components=30)
    assert [half.pca.n_components_ for half in spaces.halves] == [5, 5]


@pytest.mark.parametrize("normalised", [normalised_energy, normalised_mmd])
def test_scale_runs_from_real_halves_to_controls(groups, rng, normalised):
    truth, control = groups
    fresh, halfway = rng.normal(2, 1, (90, 40)), rng.normal(2, 1, (90, 40))
    as_truth = fresh.copy()
    as_truth[:, :10] += 2.0
    halfway[:, :10] += 1.0
    values = [
        normalised(predicted, truth, control, np.random.default_rng(0)).value
        for predicted in (as_truth, halfway, fresh)
    ]
    assert abs(values[0]) < 0.05
    assert 0.1 < values[1] < 0.6
    assert values[2] == pytest.approx(1.0, abs=0.1)


def test_normalised_distance_is_reproducible_and_depends_on_the_seed(groups):
    truth, control = groups
    first, again, other = (normalised_energy(control, truth, control, np.random.default_rng(s)) for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_normalised_distance_refuses_other_genes(groups):
    truth, control = groups
    spaces = CrossFittedPCA.fit(truth, control, np.random.default_rng(0))
    with pytest.raises(DataError, match="predicted has 39 genes, the real cells had 40"):
        normalised_distance(control[:, :39], spaces, rbf_mmd2)


def test_ratio_without_an_effect_is_not_defined():
    assert DistanceRatio(0.1, 0.4).value == pytest.approx(0.25)
    assert np.isnan(DistanceRatio(0.1, -0.01).value)
