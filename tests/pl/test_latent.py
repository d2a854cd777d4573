import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, UnknownConditionError


@pytest.fixture
def cells(rng: np.random.Generator) -> AnnData:
    obs = pd.DataFrame({"cell_type": pd.Categorical(list("BTTB")), "batch": ["b1", "b1", "b2", "b2"]})
    obs.index = obs.index.astype(str)
    return AnnData(obs=obs, obsm={"X_umap": rng.normal(size=(4, 2)), "X_other": rng.normal(size=(4, 3))})


def _numbered(values) -> AnnData:
    index = [str(number) for number in range(len(values))]
    return AnnData(obs=pd.DataFrame({"k": values}, index=index), obsm={"X_umap": np.zeros((len(values), 2))})


def _colours(ax: plt.Axes) -> dict[str, str]:
    return {str(c.get_label()): to_hex(c.get_facecolor()[0]) for c in ax.collections}


def test_a_panel_for_each_column(cells, tmp_path):
    axes = pl.latent(cells, ["cell_type", "batch"], save=tmp_path / "latent.png")
    assert [ax.get_title() for ax in axes] == ["cell_type", "batch"]
    drawn = {c.get_label(): c.get_offsets() for c in axes[0].collections}
    assert np.array_equal(drawn["T"], cells.obsm["X_umap"][[1, 2]])
    assert (tmp_path / "latent.png").stat().st_size > 1000


def test_colours_are_those_of_uns(cells):
    cells.uns["cell_type_colors"] = ["#112233", "#445566"]
    assert _colours(pl.latent(cells, "cell_type")[0]) == {"B": "#112233", "T": "#445566"}
    cells.uns["cell_type_colors"] = ["#112233"]  # of fewer categories than there are
    assert _colours(pl.latent(cells, "cell_type")[0])["B"] != "#112233"


def test_another_basis_and_axes(cells):
    ax = plt.subplots()[1]
    assert pl.latent(cells, "batch", basis="X_other", axes=[ax]) == [ax]
    assert np.array_equal(ax.collections[0].get_offsets(), cells.obsm["X_other"][:2, :2])
    assert ax.get_xlabel() == "OTHER 1"


def test_many_categories_have_many_colours():
    cells = _numbered([f"c{i:02d}" for i in range(30)])
    assert len(set(_colours(pl.latent(cells, "k")[0]).values())) == 30


def test_bad_input(cells):
    with pytest.raises(UnknownConditionError, match=r"obs\['donor'\], obsm\['X_pca'\]"):
        pl.latent(cells, "donor", basis="X_pca")
    with pytest.raises(UnknownConditionError, match="a column to draw"):
        pl.latent(cells, [])
    with pytest.raises(DataError, match="200 values"):
        pl.latent(_numbered(np.arange(200.0)), "k")
