"""The table of features of perturbations that a user gives, and how it is registered."""

import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi.data import PerturbationField, Vocabulary
from cfmvc_scvi.data.embeddings import check_embeddings
from cfmvc_scvi.errors import DataError, NonFiniteError, UnknownConditionError

KNOWN = Vocabulary(("A", "B", "C"), "control")


def table(index=("A", "B", "new"), **columns):
    return pd.DataFrame(columns or {"x": [1.0, 2.0, 3.0]}, index=list(index))


def test_a_good_table_comes_back_as_numbers():
    frame = check_embeddings(table(x=[1, 0, 1], y=[True, False, True]), "features", KNOWN)
    assert frame.dtypes.eq(np.float64).all()
    assert list(frame.index) == ["A", "B", "new"]


def test_a_row_of_nan_is_a_name_without_features():
    frame = check_embeddings(table(x=[1.0, 2.0, np.nan], y=[0.0, 1.0, np.nan]), "features", KNOWN)
    assert frame.loc["new"].isna().all()


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (np.ones((3, 2)), DataError, "is a ndarray; pass a DataFrame"),
        (pd.DataFrame(index=["A"]), DataError, "no columns"),
        (table(x=["a", "b", "c"]), DataError, "1 column that are not numbers|not numbers: x"),
        (table(("A", "A", "new")), DataError, "A twice"),
        (table(("A", "control", "new")), DataError, "rows for control"),
        (table(("A", "A+B", "new")), DataError, r"rows for A\+B"),
        (table(x=[1.0, np.nan, 1.0], y=[1.0, 2.0, 3.0]), NonFiniteError, "in part: B"),
        (table(x=[1.0, np.inf, 1.0]), NonFiniteError, "in part: B"),
        (table(("X", "Y", "Z")), DataError, "no features of any perturbation with cells"),
    ],
)
def test_bad_tables_are_named(values, kind, message):
    with pytest.raises(kind, match=message):
        check_embeddings(values, "features", KNOWN)


def test_the_vocabulary_knows_what_has_only_features(tiny_adata):
    tiny_adata.uns["features"] = table(("B", "A", "new"))
    field = PerturbationField("perturbation", "perturbation", embeddings_key="features")
    state = field.register_field(tiny_adata)
    assert state["vocabulary"]["perturbations"] == ["A", "B", "new"]
    np.testing.assert_array_equal(state["embeddings"], [[2.0], [1.0], [3.0]])
    assert tiny_adata.obsm["_scvi_perturbation"].shape[1] == 3
    assert not tiny_adata.obsm["_scvi_perturbation"][:, 2].any()
    del tiny_adata.uns["features"]
    transferred = field.transfer_field(state, tiny_adata)
    np.testing.assert_array_equal(transferred["embeddings"], state["embeddings"])


def test_perturbations_without_a_row_have_no_features(tiny_adata):
    tiny_adata.uns["features"] = table(("A", "new"), x=[1.0, 2.0])
    state = PerturbationField("perturbation", "perturbation", embeddings_key="features").register_field(tiny_adata)
    np.testing.assert_array_equal(state["embeddings"], [[1.0], [np.nan], [2.0]])
    assert state["embedded"] == ["A", "new"]


def test_a_missing_key_is_named(tiny_adata):
    with pytest.raises(UnknownConditionError, match="features"):
        PerturbationField("perturbation", "perturbation", embeddings_key="features").register_field(tiny_adata)


def test_features_without_a_perturbation_column_are_refused():
    with pytest.raises(DataError, match="pass perturbation_key"):
        PerturbationField("perturbation", None, embeddings_key="features")


def test_unknown_perturbations_name_the_argument():
    with pytest.raises(UnknownConditionError, match="perturbation_embeddings_key="):
        KNOWN.design("new")
