import numpy as np
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError


def test_one_collection_per_label(rng: np.random.Generator):
    points, labels = rng.normal(size=(9, 2)), np.repeat(["control", "predicted", "true"], 3)
    ax = pl.embedding(points, labels, axis_name="PC")
    assert [c.get_label() for c in ax.collections] == ["control", "predicted", "true"]
    for collection, name in zip(ax.collections, ["control", "predicted", "true"], strict=True):
        assert np.array_equal(collection.get_offsets(), points[labels == name])
    assert ax.get_xlabel() == "PC 1"


def test_control_cells_lie_below():
    ax = pl.embedding(np.eye(2), ["true", "control"])
    order = {c.get_label(): c.get_zorder() for c in ax.collections}
    assert order["control"] < order["true"]


def test_other_labels_have_different_colours():
    ax = pl.embedding(np.zeros((8, 2)), list("abcdefgh"))
    assert len({tuple(c.get_facecolor()[0]) for c in ax.collections}) == 8


@pytest.mark.parametrize(
    ("points", "labels", "error"),
    [
        (np.zeros((2, 3)), ["a", "b"], DataError),
        (np.zeros((2, 2)), ["a"], DataError),
        (np.zeros((0, 2)), [], DataError),
        (np.array([[0.0, np.nan]]), ["a"], NonFiniteError),
    ],
)
def test_bad_input(points, labels, error):
    with pytest.raises(error):
        pl.embedding(points, labels)


def test_a_palette_gives_colours_and_order():
    ax = pl.embedding(np.eye(2), ["a", "b"], palette={"b": "#000000", "a": "#ffffff", "unused": "#ff0000"})
    assert [c.get_label() for c in ax.collections] == ["b", "a"]
    with pytest.raises(DataError, match="no colour for 'b'"):
        pl.embedding(np.eye(2), ["a", "b"], palette={"a": "#ffffff"})
