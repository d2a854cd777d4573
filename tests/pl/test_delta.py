import matplotlib.pyplot as plt
import numpy as np
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError


def names(ax: plt.Axes) -> set[str]:
    return {text.get_text() for text in ax.texts[1:]}


def test_points_are_true_against_predicted():
    truth, predicted = np.array([1.0, 0.0, -0.5]), np.array([0.9, 0.1, -0.4])
    ax = pl.delta(predicted, truth)
    assert np.array_equal(ax.collections[0].get_offsets(), np.column_stack([truth, predicted]))
    assert ax.get_xlim() == ax.get_ylim()


def test_corner_gives_r_and_r2():
    truth = np.array([1.0, 0.0, -1.0])
    assert pl.delta(truth / 2, truth).texts[0].get_text() == "r = 1.000\n$R^2$ = 0.750"


def test_no_predicted_effect_has_no_correlation():
    assert pl.delta(np.zeros(3), np.array([1.0, 0.0, -1.0])).texts[0].get_text().startswith("r = 0.000")


def test_top_genes_are_named_and_highlighted(rng: np.random.Generator):
    truth = rng.normal(scale=0.1, size=100)
    truth[[3, 70]] = 4.0, -4.0
    ax = pl.delta(truth, truth, genes=[f"g{i}" for i in range(100)], n_labels=2)
    assert names(ax) == {"g3", "g70"}
    assert np.array_equal(np.sort(ax.collections[1].get_offsets()[:, 0]), [-4.0, 4.0])


def test_names_do_not_overlap(rng: np.random.Generator):
    truth = rng.normal(size=60)
    ax = pl.delta(truth + 0.1 * rng.normal(size=60), truth, genes=[f"gene_{i}" for i in range(60)], n_labels=30)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_saves_on_given_axes(tmp_path):
    ax = plt.subplots()[1]
    assert pl.delta([0.0, 1.0], [0.0, 2.0], ax=ax, show=False, save=tmp_path / "delta.png") is ax
    assert (tmp_path / "delta.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("predicted", "truth", "genes", "error"),
    [
        ([0.0, 1.0], [0.0], None, DataError),
        ([0.0, 1.0], [0.0, 1.0], ["g"], DataError),
        ([0.0, 1.0], [1.0, 1.0], None, DataError),
        ([0.0, np.nan], [0.0, 1.0], None, NonFiniteError),
    ],
)
def test_bad_input(predicted, truth, genes, error):
    with pytest.raises(error):
        pl.delta(predicted, truth, genes)
