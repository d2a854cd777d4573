"""Arrows in an embedding."""

import numpy as np
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError


@pytest.fixture
def states(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, (400, 2)) @ np.eye(2, 6) + 0.02 * rng.standard_normal((400, 6))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def test_directions_survive_the_projection(states: np.ndarray) -> None:
    turn = np.array([[0.0, -3.0], [3.0, 0.0]])  # the embedding is the plane of the states, turned and stretched
    embedding = states[:, :2] @ turn
    inner = np.abs(states[:, :2]).max(axis=1) < 0.8
    rotation = np.column_stack([-states[:, 1], states[:, 0], np.zeros((400, 4))])
    for velocity in (np.tile([1.0, 0, 0, 0, 0, 0], (400, 1)), rotation):
        arrows = pl.project_velocity(embedding, states, velocity)
        assert np.median(cosines(arrows, velocity[:, :2] @ turn)[inner]) > 0.95
    twice = pl.project_velocity(embedding, states, 2 * rotation)
    np.testing.assert_allclose(twice, 2 * arrows)


def test_cells_that_stay_have_no_arrow(states: np.ndarray) -> None:
    velocity = np.zeros((400, 6))
    velocity[:10, 0] = 1.0
    arrows = pl.project_velocity(states[:, :2], states, velocity)
    assert (arrows[10:] == 0).all() and (np.linalg.norm(arrows[:10], axis=1) > 0).all()


def test_the_figure(states: np.ndarray, tmp_path: object) -> None:
    velocity = np.tile([1.0, 0, 0, 0, 0, 0], (400, 1))
    groups = np.where(states[:, 0] > 0, "right", "left")
    ax = pl.velocity(states[:, :2], states, velocity, groups, show=False, save=f"{tmp_path}/velocity.png")
    quiver = next(each for each in ax.collections if hasattr(each, "U"))
    assert (quiver.U > 0).mean() > 0.9 and np.abs(quiver.V).mean() < 0.3 * quiver.U.mean()
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"left", "right"}
    still = pl.velocity(states[:, :2], states, np.zeros((400, 6)), show=False)
    assert not any(hasattr(each, "U") for each in still.collections)


def test_what_cannot_be_drawn(states: np.ndarray) -> None:
    flat, v = states[:, :2], np.zeros((400, 6))
    for ask, error, words in [
        (lambda: pl.project_velocity(states, states, v), DataError, r"\(400, 6\)"),
        (lambda: pl.project_velocity(flat, states, v[:, :3]), DataError, "same cells"),
        (lambda: pl.project_velocity(flat[:20], states[:20], v[:20]), DataError, "30 for 20 cells"),
        (lambda: pl.project_velocity(flat, states, v * np.nan), NonFiniteError, "velocity.*400 cells"),
        (lambda: pl.velocity(flat, states, v, ["a"], show=False), DataError, "1 names"),
        (lambda: pl.velocity(flat, states, v, n_grid=1, show=False), DataError, "n_grid"),
    ]:
        with pytest.raises(error, match=words):
            ask()
