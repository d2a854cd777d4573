"""How far perturbed cells reach, where it is known."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree
from sklearn.neighbors import kneighbors_graph

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import NicheResponse, distance_to_region, fit_niche_response, niche_field


@pytest.fixture
def tissue(rng: np.random.Generator) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Places, neighbours and perturbed cells of a square of 900 cells."""
    place = 30 * rng.random((900, 2))
    pool = sparse.csr_matrix(kneighbors_graph(place, 15) / 15)
    held = (np.linalg.norm(place - 10, axis=1) < 3) | (np.linalg.norm(place - 22, axis=1) < 3)
    return place, pool, held


@pytest.mark.parametrize(("gain", "noise"), [(0.6, 0.1), (0.8, 0.25), (0.95, 0.5)])
def test_gain_and_direction(gain: float, noise: float, tissue: tuple, rng: np.random.Generator) -> None:
    place, pool, held = tissue
    direction, gains, errors = np.array([2.0, -1.0, 0, 0, 0]), [], []
    field = niche_field(held, pool, np.array([gain]), 100)
    for _ in range(3):
        groups = rng.integers(0, 3, 900)
        level = 3 * rng.standard_normal((3, 5))[groups]  # of the groups, which is none of the neighbours' doing
        state = level + field * direction + noise * rng.standard_normal((900, 5)) + 4.0 * held[:, None]
        found = fit_niche_response(state, held, ~held, pool, groups, place, np.zeros(900), rng)
        assert found.found and found.p_value <= 0.02
        reach = niche_field(held, pool, np.array([found.gain]), 100)
        error = np.linalg.norm((reach * found.direction - field * direction)[~held])
        gains.append(found.gain)
        errors.append(error / np.linalg.norm((field * direction)[~held]))
    assert abs(np.mean(gains) - gain) < 0.1 and np.mean(errors) < 0.3


def test_without_a_response_there_is_none(tissue: tuple, rng: np.random.Generator) -> None:
    place, pool, held = tissue
    nothing = np.zeros(900)
    states = rng.standard_normal((5, 900, 5))
    fits = [fit_niche_response(state, held, ~held, pool, nothing, place, nothing, rng) for state in states]
    assert sum(fit.found for fit in fits) <= 1
    quiet = next(fit for fit in fits if not fit.found)
    assert not quiet.found and (quiet.spread(held, pool, np.zeros(900), 5) == 0).all()


def test_what_neighbours_have_in_common_anyway_is_no_response(tissue: tuple, rng: np.random.Generator) -> None:
    """States that vary smoothly over the tissue, as in every tissue, and perturbed cells in discs or scattered."""
    place, pool, held = tissue
    found, nothing = [], np.zeros(900)
    for number in range(6):
        smooth = rng.standard_normal((900, 4))
        for _ in range(8):
            smooth = pool @ smooth
        state = smooth / smooth.std() + 0.5 * rng.standard_normal((900, 4))
        perturbed = held if number % 2 else rng.permutation(held)
        found.append(fit_niche_response(state, perturbed, ~perturbed, pool, nothing, place, nothing, rng).found)
    assert sum(found) <= 1


def decay_length(far: np.ndarray, values: np.ndarray) -> float:
    start, bounds = (values.max(), 2.0), (0, [np.inf, 50])
    return float(curve_fit(lambda x, a, length: a * np.exp(-x / length), far, values, start, bounds=bounds)[0][1])


@pytest.mark.parametrize("length", [1.0, 2.0, 4.0])
def test_a_response_to_distance_keeps_its_length(
    length: float, tissue: tuple, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What falls off with the distance, not from neighbour to neighbour (of radius 2.2)."""
    monkeypatch.setattr("cfmvc_scvi.shift.niche._N_MOVES", 49)  # for speed
    place, pool, held = tissue
    far = cKDTree(place[held]).query(place)[0]
    region = np.linalg.norm(place - 15, axis=1) < 4
    away = distance_to_region(region, place, np.zeros(900))
    found, alike = [], []
    for _ in range(5):
        state = np.exp(-far / length)[:, None] * np.array([2.0, -1.0, 0, 0, 0]) + 0.3 * rng.standard_normal((900, 5))
        fit = fit_niche_response(state, held, ~held, pool, np.zeros(900), place, np.zeros(900), rng)
        response = np.linalg.norm(fit.spread(region, pool, away, 30), axis=1)[~region]
        found.append(decay_length(away[~region], response))
        alike.append(np.corrcoef(response, np.exp(-away[~region] / length))[0, 1])
    assert abs(np.median(found) / length - 1) < 0.3
    assert min(alike) > 0.95


def test_a_response_is_seen_through_regions_of_each_cell_type(
    tissue: tuple, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trends of two cell types that are opposite, so that one trend for both leaves them where they are."""
    monkeypatch.setattr("cfmvc_scvi.shift.niche._N_MOVES", 49)  # for speed
    place, pool, held = tissue
    groups, nothing = rng.integers(0, 2, 900), np.zeros(900)
    trend = np.where(groups == 0, 1, -1)[:, None] * np.sin(place[:, :1] / 5) * np.array([3.0, 1.5, 0])
    response = np.exp(-distance_to_region(held, place, nothing) / 2)[:, None] * np.array([0.6, -0.3, 0])
    state = trend + response + 0.3 * rng.standard_normal((900, 3))
    assert fit_niche_response(state, held, ~held, pool, groups, place, nothing, rng).found


def test_neighbours_that_are_alike_anyway_do_not_lengthen_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfmvc_scvi.shift.niche._N_MOVES", 49)  # for speed
    found, nothing = [], np.zeros(900)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        place = 30 * rng.random((900, 2))
        pool = sparse.csr_matrix(kneighbors_graph(place, 15) / 15)
        held = (np.linalg.norm(place - 10, axis=1) < 3) | (np.linalg.norm(place - 22, axis=1) < 3)
        smooth = rng.standard_normal((900, 4))
        for _ in range(6):
            smooth = pool @ smooth
        response = 2 * np.exp(-distance_to_region(held, place, nothing))[:, None] * np.array([1, -0.5, 0, 0])
        state = 0.5 * smooth / smooth.std() + 0.3 * rng.standard_normal((900, 4)) + response
        fit = fit_niche_response(state, held, ~held, pool, nothing, place, nothing, np.random.default_rng(0))
        if fit.found:
            region = np.linalg.norm(place - 15, axis=1) < 4
            away = distance_to_region(region, place, nothing)
            spread = np.linalg.norm(fit.spread(region, pool, away, 30), axis=1)[~region]
            found.append(decay_length(away[~region], spread))
    assert len(found) >= 3 and abs(np.median(found) - 1) < 0.3


def test_each_round_reaches_one_neighbourhood_further(tissue: tuple, rng: np.random.Generator) -> None:
    place, pool, held = tissue
    reached = held
    for n_rounds in range(4):
        field = niche_field(held, pool, np.array([0.9]), n_rounds)[:, 0]
        assert ((field > 0) == reached).all() and (field[held] == 1).all() and field[~held].max() <= 0.9
        reached = reached | (pool @ reached.astype(float) > 0)
    away = distance_to_region(held, place, np.zeros(900))
    for law in (NicheResponse(0.8, 0.0, np.ones(2), 0.02), NicheResponse(0.0, 5.0, np.ones(2), 0.02)):
        reached = held
        for n_rounds in range(4):
            response = law.spread(held, pool, away, n_rounds)
            assert ((response != 0).all(axis=1) == (reached & ~held)).all()
            reached = reached | (pool @ reached.astype(float) > 0)
        assert response.max() < 1


def test_distance_to_a_region_is_within_a_slice() -> None:
    place, slices = np.array([[0.0, 0], [3, 4], [0, 1], [9, 9]]), np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(distance_to_region(np.arange(4) == 0, place, slices), [0, 5, np.nan, np.nan])


def test_regions_of_one_cell_type_are_no_response(tissue: tuple, rng: np.random.Generator) -> None:
    """A trend that one group has and another has not, along which the perturbed cells lie."""
    place, pool, _ = tissue
    groups, found = rng.integers(0, 2, 900), []
    held = np.linalg.norm(place - [15, 4], axis=1) < 4
    for _ in range(5):
        trend = np.where(groups == 0, np.sin(place[:, 1] / 8), 0.0)[:, None] * np.array([3.0, 1, 0])
        state = trend + 0.3 * rng.standard_normal((900, 3))
        fit = fit_niche_response(state, held, ~held, pool, groups, place, np.zeros(900), rng)
        found.append(fit.found)
    assert sum(found) <= 1


def test_what_cannot_be_learnt(tissue: tuple, rng: np.random.Generator) -> None:
    place, pool, held = tissue
    state = np.zeros((900, 2))
    for arguments, words in [
        ((state, np.zeros(900, bool), ~held, pool, np.zeros(900)), "0 perturbed"),
        ((state, held, np.arange(900) < 3, pool, np.zeros(900)), "3 other"),
        ((state[:10], held, ~held, pool, np.zeros(900)), "same cells"),
    ]:
        with pytest.raises(DataError, match=words):
            fit_niche_response(*arguments, place, np.zeros(900), rng)
