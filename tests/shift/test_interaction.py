"""What perturbations do only together."""

from itertools import combinations

import numpy as np
import pytest

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import fit_interactions, interaction_rows

PAIRS = np.array([[float(j in pair) for j in range(5)] for pair in combinations(range(5), 2)])


@pytest.fixture
def loadings(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((5, 80))


def test_single_perturbations_and_control_have_none(loadings: np.ndarray) -> None:
    fit = fit_interactions(PAIRS, PAIRS @ loadings, np.ones(5))
    assert fit.factor > 0.9
    assert (fit.predict(np.vstack([np.zeros(5), np.eye(5)]), np.ones(5)) == 0).all()


def test_a_pair_and_a_triple_are_predicted_from_other_pairs(loadings: np.ndarray, rng: np.random.Generator) -> None:
    values = PAIRS @ loadings + 0.3 * rng.standard_normal((10, 80))
    fit = fit_interactions(PAIRS[1:], values[1:], np.ones(5))
    found = fit.predict(PAIRS[0], np.ones(5))[0]
    truth = PAIRS[0] @ loadings
    assert np.linalg.norm(found - truth) < 0.4 * np.linalg.norm(truth)
    assert np.median(np.abs(found - truth)) < 2 * np.median(fit.error)
    triple = fit.predict([1, 1, 1, 0, 0], np.ones(5))[0]  # three pairs, in each of which every part meets another
    truth = 2 * loadings[:3].sum(axis=0)
    assert np.linalg.norm(triple - truth) < 0.4 * np.linalg.norm(truth)


def test_where_nothing_carries_over_unseen_combinations_are_additive(rng: np.random.Generator) -> None:
    fits = [fit_interactions(PAIRS[1:], rng.standard_normal((9, 80)), np.ones(5)) for _ in range(5)]
    assert np.mean([fit.factor for fit in fits]) < 0.1
    shares = [np.linalg.norm(fit.predict(PAIRS[0], np.ones(5))) / np.sqrt(80) for fit in fits]
    assert np.mean(shares) < 0.1


@pytest.mark.parametrize("n_seen", [0, 1, 2])
def test_two_combinations_are_too_few(n_seen: int, loadings: np.ndarray) -> None:
    fit = fit_interactions(PAIRS[:n_seen], PAIRS[:n_seen] @ loadings, np.ones(5))
    assert fit.factor == 0 and (fit.predict(PAIRS[4], np.ones(5)) == 0).all()


def test_doses_weigh_the_parts() -> None:
    rows = interaction_rows([[1.0, 3.0], [3.0, 0.0], [9.0, 3.0]], [3.0, 3.0])
    np.testing.assert_allclose(rows, [[np.log(2) / np.log(4), 1], [0, 0], [1, 1]])
    assert (interaction_rows([1.0, 1.0], [0.0, 1.0]) == [0, 1]).all()  # the first was never seen


def test_shapes_must_fit() -> None:
    with pytest.raises(DataError, match="10 combinations"):
        fit_interactions(PAIRS, np.zeros((9, 3)), np.ones(5))
