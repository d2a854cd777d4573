import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import pl
from cfmvc_scvi.errors import DataError, NonFiniteError, UnknownConditionError


@pytest.fixture
def table() -> pd.DataFrame:
    genes = ["g0", "g1", "g2", "g3"]
    effects = {
        ("A", "B cells"): [3.0, 0, -2, 0.1],
        ("A", "T cells"): [2.0, 0, -1, 0.1],
        ("C", "T cells"): [0, 1.0, 0, 0],
    }
    rows = [
        {"perturbation": p, "context": c, "gene": gene, "delta": delta, "observed": c == "T cells"}
        for (p, c), deltas in effects.items()
        for gene, delta in zip(genes, deltas, strict=True)
    ]
    return pd.DataFrame(rows)


def _names(labels) -> list[str]:
    return [label.get_text() for label in labels]


def test_rows_are_perturbations_in_contexts_and_columns_the_genes_that_change_most(table, tmp_path):
    ax = plt.subplots()[1]
    assert pl.effects(table, 3, ax=ax, save=tmp_path / "effects.png") is ax
    assert _names(ax.get_yticklabels()) == ["A · B cells ∘", "A · T cells", "C · T cells"]
    drawn = pd.DataFrame(ax.images[0].get_array(), columns=_names(ax.get_xticklabels()))
    assert drawn[["g0", "g1", "g2"]].to_numpy().tolist() == [[3, 0, -2], [2, 0, -1], [0, 1, 0]]


def test_no_effect_is_in_the_middle_of_the_colours(table):
    low, high = pl.effects(table).images[0].get_clim()
    assert low == -high < 0


def test_genes_alike_are_neighbours(table):
    names = _names(pl.effects(table).get_xticklabels())
    assert abs(names.index("g1") - names.index("g3")) == 1


def test_one_perturbation_needs_no_name(table):
    one = table[table["perturbation"] == "A"].drop(columns=["perturbation", "observed"])
    assert _names(pl.effects(one).get_yticklabels()) == ["B cells", "T cells"]


def test_bad_tables(table):
    with pytest.raises(UnknownConditionError, match="'delta'"):
        pl.effects(table.drop(columns="delta"))
    with pytest.raises(DataError, match="add a column 'perturbation'"):
        pl.effects(table.drop(columns="perturbation"))
    with pytest.raises(DataError, match="every gene"):
        pl.effects(table.iloc[1:])
    with pytest.raises(NonFiniteError, match="1 of 12"):
        pl.effects(table.assign(delta=[np.nan, *table["delta"][1:]]))


def test_similarity_is_the_correlation_in_an_order_of_likeness(rng: np.random.Generator):
    base = rng.normal(size=(2, 50))
    rows = np.vstack([base[0], base[1], base[0] + 0.1 * rng.normal(size=50), -base[1]])
    ax = pl.similarity(pd.DataFrame(rows, index=["a", "b", "a2", "anti"]))
    names = _names(ax.get_yticklabels())
    assert abs(names.index("a") - names.index("a2")) == 1
    drawn = pd.DataFrame(ax.images[0].get_array(), index=names, columns=_names(ax.get_xticklabels()))
    assert drawn.loc["b", "anti"] == pytest.approx(-1.0)
    assert drawn.loc["a", "a2"] == pytest.approx(np.corrcoef(rows[0], rows[2])[0, 1])
    assert len(ax.texts) == 16


def test_similarity_of_nothing():
    with pytest.raises(DataError, match="1 conditions"):
        pl.similarity(pd.DataFrame([[1.0, 2.0]]))
    with pytest.raises(DataError, match="'flat'"):
        pl.similarity(pd.DataFrame([[1.0, 2.0], [1.0, 1.0]], index=["a", "flat"]))
    with pytest.raises(NonFiniteError, match="1 of 2"):
        pl.similarity(pd.DataFrame([[1.0, np.nan], [1.0, 3.0]]))
