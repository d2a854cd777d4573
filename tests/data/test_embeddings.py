"""The table of features of perturbations that a user gives, and how it is registered."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi.data import PerturbationField, Vocabulary
from cfmvc_scvi.data.embeddings import check_embeddings
from cfmvc_scvi.errors import DataError, NonFiniteError, UnknownConditionError

KNOWN = Vocabulary(("A", "B", "C"), "control")


def table(index=("A", "B", "new"), **columns):
    return pd.DataFrame(columns or {"x": [1.0, 2.0, 3.0]}, index=list(index))


def test_a_good_table_comes_back_as_numbers():
    frame = check_embeddings(table(x=[1, 0, 1], y=[True, False, True]), "uns['features']", KNOWN)
    assert frame.dtypes.eq(np.float64).all()
    assert list(frame.index) == ["A", "B", "new"]


def test_a_row_of_nan_is_a_name_without_features():
    frame = check_embeddings(table(x=[1.0, 2.0, np.nan], y=[0.0, 1.0, np.nan]), "uns['features']", KNOWN)
    assert frame.loc["new"].isna().all()


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (np.ones((3, 2)), DataError, "is a ndarray; pass a DataFrame"),
        ({"A": [1.0, 2.0], "B": [1.0]}, DataError, "1 features of 'B' and 2 of 'A'"),
        ({}, DataError, "no columns"),
        ({"A": ["x"], "B": ["y"]}, DataError, "not numbers"),
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
        check_embeddings(values, "uns['features']", KNOWN)


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


def test_a_mapping_is_a_table():
    rows = {"A": [1.0, 0.0], "new": np.array([2, 3]), "unknown": [np.nan, np.nan], "alone": np.nan}
    frame = check_embeddings(rows, "here", KNOWN)
    assert list(frame.index) == list(rows) and frame.loc["new"].tolist() == [2.0, 3.0]
    assert frame.loc[["unknown", "alone"]].isna().all(axis=None)


@pytest.mark.parametrize("kind", ["array", "frame", "sparse"])
def test_features_of_genes_describe_the_perturbations_named_after_them(tiny_adata, kind):
    tiny_adata.var_names = ["B", "A", "control", *tiny_adata.var_names[3:]]
    values = np.full((tiny_adata.n_vars, 2), np.nan)
    values[:6] = np.arange(12.0).reshape(6, 2)
    if kind == "sparse":
        values[6:] = 0  # features of zero, which are features
    forms = {"array": values, "frame": pd.DataFrame(values, tiny_adata.var_names), "sparse": sparse.csr_matrix(values)}
    tiny_adata.varm["features"] = forms[kind]
    field = PerturbationField("perturbation", "perturbation", embeddings_key="features")
    state = field.register_field(tiny_adata)
    others = list(tiny_adata.var_names[3:] if kind == "sparse" else tiny_adata.var_names[3:6])
    assert state["embedded"] == ["B", "A", *others]
    names = state["vocabulary"]["perturbations"]
    np.testing.assert_array_equal(state["embeddings"][names.index("A")], [2.0, 3.0])
    np.testing.assert_array_equal(state["embeddings"][names.index(others[0])], [6.0, 7.0])


def test_where_features_are_not_is_said(tiny_adata):
    field = PerturbationField("perturbation", "perturbation", embeddings_key="features")
    tiny_adata.obsm["features"] = np.ones((tiny_adata.n_obs, 2))
    with pytest.raises(DataError, match="row for each cell.*uns\\['features'\\]"):
        field.register_field(tiny_adata)
    tiny_adata.uns["features"] = table()
    field.register_field(tiny_adata)  # whatever else has this name in obsm
    tiny_adata.varm["features"] = np.ones((tiny_adata.n_vars, 2))
    with pytest.raises(DataError, match="both uns and varm"):
        field.register_field(tiny_adata)
    del tiny_adata.uns["features"]
    with pytest.raises(DataError, match="varm.*no features of any perturbation with cells"):
        field.register_field(tiny_adata)
