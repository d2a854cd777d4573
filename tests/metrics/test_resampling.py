"""Energy distances of several sets of cells, and their resamples."""

import numpy as np
import pytest

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.metrics import bootstrap_energy, energy_distance


def test_the_estimate_is_the_energy_distance(rng: np.random.Generator) -> None:
    sets, target = rng.standard_normal((3, 40, 4)), rng.standard_normal((25, 4)) + 0.5
    found = bootstrap_energy(sets, target, rng, 20)
    np.testing.assert_allclose(found.estimate, [energy_distance(cells, target) for cells in sets])
    assert found.resampled.shape == (20, 3)


def test_resampled_distances_are_those_of_the_cells_drawn(rng: np.random.Generator) -> None:
    """A resample is the mean over pairs of different cells, each as often as it was drawn."""
    cells, target = rng.standard_normal((6, 2)), rng.standard_normal((5, 2))
    found = bootstrap_energy([cells], target, np.random.default_rng(3), 1)
    again = np.random.default_rng(3)
    w, v = (again.multinomial(n, np.full(n, 1 / n), 1)[0] for n in (6, 5))

    def mean(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, different: bool) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (different and i == j)]
        weights = np.array([a[i] * b[j] for i, j in pairs], dtype=float)
        return np.average([np.linalg.norm(x[i] - y[j]) for i, j in pairs], weights=weights)

    expected = 2 * mean(cells, target, w, v, False) - mean(cells, cells, w, w, True) - mean(target, target, v, v, True)
    np.testing.assert_allclose(found.resampled[0, 0], expected)


def test_intervals_cover_and_pairs_are_compared_within_a_resample(rng: np.random.Generator) -> None:
    inside, n = 0, 60
    for _ in range(n):
        low, high = bootstrap_energy([rng.standard_normal((40, 2))], rng.standard_normal((40, 2)) + 1, rng).interval(
            0.9
        )
        inside += int(low[0] <= 0.8356 <= high[0])  # 2 E|x-y| - E|x-x'| - E|y-y'| of N(0, I) and N((1, 1), I)
    assert 0.75 * n < inside < n
    cells = rng.standard_normal((50, 2))
    found = bootstrap_energy([cells, cells + 0.2], rng.standard_normal((50, 2)) + 1, rng)
    difference = np.diff(found.resampled, axis=1)
    assert difference.std() < 0.5 * found.resampled.std(axis=0).min()


@pytest.mark.parametrize(
    ("sets", "target", "n", "words"),
    [
        ([], np.zeros((4, 2)), 5, "0 sets"),
        ([np.zeros((4, 2))], np.zeros((4, 2)), 0, "0 resamples"),
        ([np.zeros((4, 2)), np.zeros((5, 2))], np.zeros((4, 2)), 5, "between 4 and 5 cells"),
        ([np.zeros((4, 3))], np.zeros((4, 2)), 5, "numbers of genes"),
        ([np.zeros((1, 2))], np.zeros((4, 2)), 5, "1 cells"),
    ],
)
def test_what_cannot_be_compared(
    sets: list[np.ndarray], target: np.ndarray, n: int, words: str, rng: np.random.Generator
) -> None:
    with pytest.raises(DataError, match=words):
        bootstrap_energy(sets, target, rng, n)
    with pytest.raises(NonFiniteError):
        bootstrap_energy([np.full((4, 2), np.nan)], np.zeros((4, 2)), rng)
