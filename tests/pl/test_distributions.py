import numpy as np
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError


@pytest.fixture
def cells(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.poisson(2.0, (30, 2)).astype(float) for name in ("control", "predicted", "true")}


def test_dots_are_means(cells):
    ax = pl.distributions(cells, ["ISG15", "IFI6"])
    dots = [points.get_offsets() for points in ax.collections if len(points.get_offsets()) == 2]
    assert np.allclose([d[:, 1] for d in dots], [group.mean(axis=0) for group in cells.values()])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["ISG15", "IFI6"]


def test_violins_of_a_gene_stand_side_by_side(cells):
    ax = pl.distributions(cells, ["a", "b"])
    bodies = [body.get_paths()[0].vertices[:, 0] for body in ax.collections if len(body.get_offsets()) != 2]
    assert len(bodies) == 6
    first = sorted((x.min(), x.max()) for x in bodies if x.max() < 0.5)
    assert len(first) == 3
    assert all(left[1] < right[0] for left, right in zip(first, first[1:], strict=False))


def test_groups_have_colours_of_their_own(cells):
    legend = pl.distributions(cells, ["a", "b"]).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(cells)
    assert len({patch.get_facecolor() for patch in legend.get_patches()}) == 3


def test_genes_without_counts_can_be_drawn():
    ax = pl.distributions({"control": np.zeros((5, 1)), "other": np.zeros((5, 1))}, ["silent"])
    assert ax.get_ylim()[0] == 0.0


@pytest.mark.parametrize(
    ("values", "genes", "error"),
    [
        ({}, ["a"], DataError),
        ({"control": np.zeros((5, 2))}, ["a"], DataError),
        ({"control": np.zeros((1, 1))}, ["a"], DataError),
        ({"control": np.array([[1.0], [np.inf]])}, ["a"], NonFiniteError),
    ],
)
def test_bad_input(values, genes, error):
    with pytest.raises(error):
        pl.distributions(values, genes)


def test_long_names_are_cut_and_turned(cells):
    one_group = {"control": cells["control"]}
    labels = pl.distributions(one_group, ["APOBEC3A_ENSG00000128383", "IFI6"]).get_xticklabels()
    assert [label.get_text() for label in labels] == ["APOBEC3A_ENSG…", "IFI6"]
    assert [label.get_rotation() for label in labels] == [30.0, 30.0]
    short = pl.distributions(one_group, ["ISG15", "IFI6"]).get_xticklabels()
    assert [label.get_rotation() for label in short] == [0.0, 0.0]
