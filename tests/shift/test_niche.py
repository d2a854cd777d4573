"""How far perturbed cells reach, where it is known."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import kneighbors_graph

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import fit_niche_response, niche_field


@pytest.fixture
def tissue(rng: np.random.Generator) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Places, neighbours and perturbed cells of a square of 900 cells."""
    place = 30 * rng.random((900, 2))
    pool = sparse.csr_matrix(kneighbors_graph(place, 15) / 15)
    held = (np.linalg.norm(place - 10, axis=1) < 3) | (np.linalg.norm(place - 22, axis=1) < 3)
    return place, pool, held


@pytest.mark.parametrize("gain", [0.6, 0.8, 0.95])
def test_gain_and_direction(gain: float, tissue: tuple, rng: np.random.Generator) -> None:
    _, pool, held = tissue
    direction, groups = np.array([2.0, -1.0, 0, 0, 0]), rng.integers(0, 3, 900)
    field = niche_field(held, pool, np.array([gain]), 100)
    level = 3 * rng.standard_normal((3, 5))[groups]  # of the groups, which is none of the neighbours' doing
    state = level + field * direction + 0.5 * rng.standard_normal((900, 5)) + 4.0 * held[:, None]
    found = fit_niche_response(state, held, ~held, pool, groups, rng)
    assert found.p_value <= 0.05 and abs(found.gain - gain) < 0.15
    reach = niche_field(held, pool, np.array([found.gain]), 100)
    error = np.linalg.norm((reach * found.direction - field * direction)[~held])
    assert error < 0.3 * np.linalg.norm((field * direction)[~held])


def test_without_a_response_there_is_none(tissue: tuple, rng: np.random.Generator) -> None:
    _, pool, held = tissue
    fits = [fit_niche_response(rng.standard_normal((900, 5)), held, ~held, pool, np.zeros(900), rng) for _ in range(12)]
    assert sum(fit.gain > 0 for fit in fits) <= 3
    quiet = next(fit for fit in fits if fit.gain == 0)
    assert (quiet.spread(held, pool, 5) == 0).all()


def test_each_round_reaches_one_neighbourhood_further(tissue: tuple, rng: np.random.Generator) -> None:
    _, pool, held = tissue
    reached = held
    for n_rounds in range(4):
        field = niche_field(held, pool, np.array([0.9]), n_rounds)[:, 0]
        assert ((field > 0) == reached).all() and (field[held] == 1).all() and field[~held].max() <= 0.9
        reached = reached | (pool @ reached.astype(float) > 0)
    fit = fit_niche_response(
        niche_field(held, pool, np.array([0.8]), 100) + 0.1 * rng.standard_normal((900, 2)),
        held, ~held, pool, np.zeros(900), rng,
    )  # fmt: skip
    assert (fit.spread(held, pool, 0) == 0).all() and (fit.spread(held, pool, 9)[held] == 0).all()


def test_what_cannot_be_learnt(tissue: tuple, rng: np.random.Generator) -> None:
    _, pool, held = tissue
    state = np.zeros((900, 2))
    for arguments, words in [
        ((state, np.zeros(900, bool), ~held, pool, np.zeros(900)), "0 perturbed"),
        ((state, held, np.arange(900) < 3, pool, np.zeros(900)), "3 other"),
        ((state[:10], held, ~held, pool, np.zeros(900)), "same cells"),
    ]:
        with pytest.raises(DataError, match=words):
            fit_niche_response(*arguments, rng)
