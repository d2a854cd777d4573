"""One test per kind of bad input: what happens, and what the message says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scvi.data import AnnDataManager

from cfmvc_scvi.data import (
    CategoryField,
    PerturbationField,
    Vocabulary,
    check_control,
    check_counts,
    check_labels,
    check_min_cells,
    check_names,
    check_obsm,
    convert_counts,
    match_genes,
    to_csr,
)
from cfmvc_scvi.errors import CFMVCError, CFMVCWarning, DataError, UnknownConditionError


def setup(data: ad.AnnData, **options: Any) -> AnnDataManager:
    manager = AnnDataManager(fields=[PerturbationField("perturbation", "perturbation", **options)])
    manager.register_fields(data)
    return manager


def with_value(data: ad.AnnData, value: float) -> None:
    data.X[7, 3] = value
    check_counts(data)


def with_matrix(data: ad.AnnData, change: Callable[[np.ndarray], Any], **options: Any) -> None:
    check_counts(ad.AnnData(X=change(data.X.toarray()), obs=data.obs, var=data.var, layers=data.layers), **options)


def log_normalised(data: ad.AnnData) -> None:
    data.layers["counts"] = data.X.copy()
    with_matrix(data, np.log1p)


def with_labels(data: ad.AnnData, labels: Any) -> None:
    data.obs["perturbation"] = labels
    setup(data)


def nan_labels(data: ad.AnnData) -> None:
    labels = data.obs["perturbation"].astype(object)
    labels.iloc[[2, 5]] = np.nan
    for dtype in (object, "category", "string"):
        data.obs["perturbation"] = labels.astype(dtype)
        with pytest.raises(DataError) as caught:
            setup(data)
    raise caught.value


def transferred(data: ad.AnnData, label: Any, field_class: Callable[..., Any], *args: Any) -> None:
    manager = AnnDataManager(fields=[field_class(*args)])
    manager.register_fields(data)
    query = data[:3].copy()
    query.obs["perturbation"] = label
    manager.transfer_fields(query)


def dask_array(data: ad.AnnData) -> None:
    lazy = type("Array", (), {"__module__": "dask.array.core"})()
    check_counts(SimpleNamespace(layers={"lazy": lazy}, shape=data.shape), "lazy")


def spatial(data: ad.AnnData, value: float, width: int | None) -> None:
    data.obsm["spatial"] = np.zeros((24, 2))
    data.obsm["spatial"][4, 1] = value
    check_obsm(data, "spatial", width)


def renamed(data: ad.AnnData, names: str, values: list[str]) -> None:
    setattr(data, names, values)
    check_names(data)


def works(data: ad.AnnData, dtype: Any) -> None:
    """Labels of this dtype register, and the column stays what it is."""
    labels = pd.Series(np.arange(24) % 2, index=data.obs_names).astype(dtype)
    data.obs["perturbation"] = labels
    manager = setup(data, control=str(labels.iloc[0]))
    np.testing.assert_array_equal(manager.get_from_registry("perturbation").ravel(), np.arange(24) % 2)
    pd.testing.assert_series_equal(data.obs["perturbation"], labels, check_names=False)


def unused_categories(data: ad.AnnData) -> None:
    data.obs["perturbation"] = data.obs["perturbation"].cat.add_categories(["ghost"])
    manager = setup(data)
    labels = AnnDataManager(fields=[CategoryField("labels", "perturbation")])
    labels.register_fields(data)
    assert (manager.summary_stats["n_perturbations"], labels.summary_stats["n_labels"]) == (2, 4)


@dataclass
class Row:
    """A row of the table: what is put in, and what must come out."""

    text: str
    run: Callable[[ad.AnnData], Any]
    expected: type[Exception] | None = None
    words: list[str] = field(default_factory=list)


E, W, U = DataError, CFMVCWarning, UnknownConditionError
ROWS = [
    Row(
        "log-normalised X", log_normalised, E, ["X looks log-normalised (max ", " % non-integer); pass layer='counts'"]
    ),
    Row(
        "non-integer counts (ambient-corrected)",
        lambda data: with_matrix(data, lambda x: np.where(x == 3, 40.5, x)),
        E,
        ["non-integer values (", " % of", "(40.5) in cell 'cell", "allow_non_integer=True"],
    ),
    Row(
        "non-integer counts, allowed",
        lambda data: with_matrix(data, lambda x: np.where(x == 3, 40.5, x), allow_non_integer=True),
    ),
    Row("one negative value", lambda data: with_value(data, -1), E, ["1 negative value", "(-1)", "'cell7'", "'gene3'"]),
    Row("NaN in X", lambda data: with_value(data, np.nan), E, ["1 NaN value", "'cell7'", "'gene3'"]),
    Row("one inf", lambda data: with_value(data, np.inf), E, ["1 infinite value", "'cell7'", "'gene3'"]),
    Row(
        "zero-count cells",
        lambda data: with_matrix(data, lambda x: x * (np.arange(24) > 1)[:, None]),
        W,
        ["2 cells without a count in X: cell0, cell1", "filter"],
    ),
    Row(
        "all-zero gene",
        lambda data: with_matrix(data, lambda x: x * (np.arange(6) > 0)),
        None,
        ["1 gene without a count in X: gene0"],
    ),
    Row("all-zero X", lambda data: with_matrix(data, lambda x: x * 0), E, ["X is zero in all 24 cells; pass"]),
    Row("0 cells", lambda data: check_counts(data[:0]), E, ["0 cells", "at least 3 cells"]),
    Row("1-2 cells", lambda data: check_counts(data[:2]), E, ["2 cells", "at least 3 cells"]),
    Row("a count of 1e6", lambda data: with_value(data, 1e6)),
    Row("a view", lambda data: check_counts(data[5:])),
    Row(
        "reordered genes at inference",
        lambda data: match_genes(data[:, ::-1].copy(), data.var_names),
        None,
        ["reordered genes by name"],
    ),
    Row(
        "missing genes at inference",
        lambda data: match_genes(data, ["gene1", *(f"new{i}" for i in range(7))]),
        E,
        ["7 genes", "new0, new1, new2, new3, new4, ...", "pad_missing=True"],
    ),
    Row(
        "missing genes at inference, padded",
        lambda data: match_genes(data, ["gene1", "new0"], pad_missing=True),
        W,
        ["1 gene", "counted as zero: new0"],
    ),
    Row(
        "no shared genes (symbols vs ENSG)",
        lambda data: match_genes(data, [f"ENSG{i}" for i in range(5)]),
        E,
        ["no gene is shared", "ENSG0, ENSG1, ENSG2, ...", "gene0, gene1, gene2, ..."],
    ),
    Row(
        "duplicate var_names",
        lambda data: renamed(data, "var_names", ["g0", "g1", "g1", "g2", "g2", "g3"]),
        E,
        ["2 gene names", "g1, g2", "var_names_make_unique()"],
    ),
    Row(
        "duplicate obs_names",
        lambda data: renamed(data, "obs_names", ["same", *data.obs_names[1:-1], "same"]),
        W,
        ["1 cell name", "same", "obs_names_make_unique()"],
    ),
    Row(
        "missing obs key",
        lambda data: check_labels(data.obs, "perturbaton", "perturbation"),
        U,
        ["'perturbaton' is not in adata.obs", "Did you mean 'perturbation'?"],
    ),
    Row(
        "missing layer",
        lambda data: check_counts(data, "counts"),
        U,
        ["'counts' is not in adata.layers, which has: none"],
    ),
    Row(
        "missing obsm key",
        lambda data: (data.obsm.__setitem__("spatial", np.zeros((24, 2))), check_obsm(data, "Spatial")),
        U,
        ["'Spatial' is not in adata.obsm", "Did you mean 'spatial'?"],
    ),
    Row(
        "NaN label (object, categorical, string)",
        nan_labels,
        E,
        ["2 cells have no value in obs['perturbation']", "cell2, cell5"],
    ),
    Row(
        "mixed int/str labels",
        lambda data: with_labels(data, pd.Series([1, "a"] * 12, index=data.obs_names, dtype=object)),
        E,
        ["obs['perturbation'] (perturbation) mixes int and str"],
    ),
    Row("pandas string dtype labels", lambda data: works(data, "string")),
    Row("bool labels", lambda data: works(data, bool)),
    Row("int labels", lambda data: works(data, int)),
    Row("nullable int labels", lambda data: works(data, "Int64")),
    Row("categorical int labels", lambda data: works(data, pd.CategoricalDtype([1, 0]))),
    Row(
        "unused categories",
        unused_categories,
        None,
        ["ignored 1 category of obs['perturbation'] without a cell: ghost"],
    ),
    Row(
        "control label absent",
        lambda data: setup(data, control="Contrl"),
        E,
        ["no cell has the control label 'Contrl'", "A, A+B, B, control", "Did you mean 'control'?"],
    ),
    Row(
        "no control cell in a covariate group",
        lambda data: check_control(["control", "A", "A"], "control", ["x", "x", "y"]),
        W,
        ["1 context without a control cell: y"],
    ),
    Row(
        "perturbation with 1 cell",
        lambda data: check_min_cells(["control", "control", "A", "A", "B"], 2),
        W,
        ["1 perturbation with fewer than 2 cells: B (1 cell)"],
    ),
    Row(
        "unseen perturbation at predict",
        lambda data: Vocabulary(("STAT1", "IRF1"), "control").design("STAT2"),
        U,
        ["unknown perturbation 'STAT2'", "STAT1, IRF1", "'STAT2' -> 'STAT1'", "embedding"],
    ),
    Row(
        'combination with an unknown part ("A+Z")',
        lambda data: transferred(data, "A+Z", PerturbationField, "perturbation", "perturbation"),
        U,
        ["unknown perturbation 'Z' (in 'A+Z')"],
    ),
    Row(
        "a single new category that is falsy (0): perturbation",
        lambda data: transferred(data, 0, PerturbationField, "perturbation", "perturbation"),
        U,
        ["unknown perturbation '0'"],
    ),
    Row(
        'a single new category that is falsy (""): perturbation',
        lambda data: transferred(data, "", PerturbationField, "perturbation", "perturbation"),
        U,
        ["unknown perturbation ''"],
    ),
    Row(
        "a single new category that is falsy (0): category",
        lambda data: transferred(data, 0, CategoryField, "batch", "perturbation"),
        U,
        ["unknown to the model: 0"],
    ),
    Row(
        'a single new category that is falsy (""): category',
        lambda data: transferred(data, "", CategoryField, "batch", "perturbation"),
        U,
        ["unknown to the model: ''"],
    ),
    Row(
        "dose NaN or negative",
        lambda data: (
            data.obs.__setitem__("dose", [np.nan, -1.0, np.nan, *[1.0] * 21]),
            setup(data, dose_key="dose"),
        ),
        E,
        ["2 cells without a valid dose in 'dose': cell1 ('A' with dose -1.0), cell2 ('B' with dose nan)"],
    ),
    *(
        Row(f"{np.dtype(dtype).name} X", lambda data, dtype=dtype: with_matrix(data, lambda x: x.astype(dtype)))
        for dtype in (np.float16, np.int64, np.int32, np.uint16, bool, np.float64)
    ),
    Row(
        "float16 over 2048",
        lambda data: with_matrix(data, lambda x: (x * 1000).astype(np.float16)),
        W,
        ["float16", "2048"],
    ),
    Row(
        "float16 inf",
        lambda data: with_matrix(data, lambda x: np.where(x == x.max(), np.inf, x).astype(np.float16)),
        E,
        ["infinite value"],
    ),
    Row(
        "CSC",
        lambda data: (setattr(data, "X", data.X.tocsc()), check_counts(data), convert_counts(data)),
        None,
        ["converted X from csc_matrix to csr_matrix"],
    ),
    Row("COO", lambda data: to_csr(data.X.tocoo(), "X"), None, ["converted X from coo_matrix to csr_matrix"]),
    Row(
        "csr_array layer",
        lambda data: (
            data.layers.__setitem__("counts", sparse.csr_array(data.X)),
            check_counts(data, "counts"),
            convert_counts(data, "counts"),
        ),
        None,
        ["converted layers['counts'] from csr_array to csr_matrix"],
    ),
    Row("dask array", dask_array, E, ["layers['lazy'] is a dask array", "adata.layers['lazy'].compute()"]),
    Row("obsm spatial with NaN", lambda data: spatial(data, np.nan, None), E, ["obsm['spatial']", "1 cell: cell4"]),
    Row(
        "obsm spatial of a wrong width at query",
        lambda data: spatial(data, 0, 3),
        E,
        ["obsm['spatial'] has 2 columns; expected 3"],
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.text for row in ROWS])
def test_bad_input(row: Row, adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cfmvc_scvi")
    if row.expected is None:
        row.run(adata)
        message = caplog.text
    elif issubclass(row.expected, Warning):
        with pytest.warns(row.expected) as warned:
            row.run(adata)
        message = "\n".join(str(warning.message) for warning in warned)
    else:
        with pytest.raises(row.expected) as caught:
            row.run(adata)
        assert isinstance(caught.value, CFMVCError)
        message = str(caught.value)
    for words in row.words:
        assert words in message


def test_quiet_where_nothing_is_wrong(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cfmvc_scvi")
    before = adata.copy()
    check_names(adata)
    check_counts(adata)
    labels = check_labels(adata.obs, "perturbation", "perturbation")
    check_control(labels, "control", adata.obs["cell_type"])
    assert check_min_cells(labels, 6) == ()
    assert not caplog.records
    np.testing.assert_array_equal(adata.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_checks_leave_the_global_random_state_alone(adata: ad.AnnData) -> None:
    before = np.random.get_state()[1].copy()
    check_counts(adata)
    setup(adata)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
