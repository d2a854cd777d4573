from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cfmvc_scvi.data import CountRows, check_counts, convert_counts, counts, to_csr
from cfmvc_scvi.errors import CFMVCWarning, DataError, UnknownConditionError

STORAGES = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
    "dense": np.ascontiguousarray,
    "fortran": np.asfortranarray,
}


@pytest.fixture(params=[1 << 22, 8], ids=["one block", "many blocks"])
def block_values(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "BLOCK_VALUES", request.param)


def stored(adata: ad.AnnData, storage: str, tmp_path: Path) -> ad.AnnData:
    """The same cells, in memory or opened from a file."""
    kind, _, backed = storage.partition(" ")
    dense = adata.X.toarray()
    found = ad.AnnData(X=STORAGES[kind](dense), obs=adata.obs, var=adata.var)
    if not backed:
        return found
    found.write_h5ad(tmp_path / "cells.h5ad")
    return ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")


@pytest.mark.usefixtures("block_values")
@pytest.mark.parametrize("storage", [*STORAGES, "csr backed", "csc backed", "dense backed"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, r"1 NaN value, the first \(nan\)"),
        (np.inf, r"1 infinite value, the first \(inf\)"),
        (-2.0, r"1 negative value, the first \(-2\)"),
        (2.5, r"1 non-integer value \(0.69 % of those other than zero\), the first \(2.5\)"),
    ],
)
def test_one_bad_value_is_found_in_every_storage(
    adata: ad.AnnData, tmp_path: Path, storage: str, value: float, words: str
) -> None:
    adata.X[17, 4] = value
    with pytest.raises(DataError, match=rf"X has {words} in cell 'cell17', gene 'gene4'"):
        check_counts(stored(adata, storage, tmp_path))


@pytest.mark.usefixtures("block_values")
@pytest.mark.parametrize("storage", [*STORAGES, "csr backed", "csc backed", "dense backed"])
def test_empty_cells_and_genes_are_found_in_every_storage(
    adata: ad.AnnData, tmp_path: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(24) != 5)[:, None] * (np.arange(6) != 2))
    with (
        caplog.at_level(logging.INFO, "cfmvc_scvi"),
        pytest.warns(CFMVCWarning, match="1 cell without a count in X: cell5;"),
    ):
        check_counts(stored(adata, storage, tmp_path))
    assert "1 gene without a count in X: gene2" in caplog.text


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(list(STORAGES)),
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint16]),
)
def test_any_matrix_of_counts_passes(seed: int, storage: str, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.poisson(1.0, size=(rng.integers(3, 40), rng.integers(1, 20))) + 1) * rng.choice([1, 50_000])
    before = matrix.astype(dtype)
    data = ad.AnnData(X=STORAGES[storage](before.copy()))
    check_counts(data)
    converted = convert_counts(data)
    assert converted == (storage in ("csc", "csr_array", "csc_array"))
    after = data.X.toarray() if sparse.issparse(data.X) else data.X
    np.testing.assert_array_equal(after, before)


def test_explicit_zeros_are_no_counts(adata: ad.AnnData) -> None:
    adata.X.data[:] = 0
    with pytest.raises(DataError, match="zero in all 24 cells"):
        check_counts(adata)


def test_a_layer_is_checked_instead_of_x(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.X.data[0] = np.nan
    check_counts(adata, "counts")
    adata.layers["counts"].data[0] = -1
    with pytest.raises(DataError, match=r"layers\['counts'\] has 1 negative value"):
        check_counts(adata, "counts")


def test_view_is_checked(adata: ad.AnnData) -> None:
    adata.X[17, 4] = -2
    check_counts(adata[:10])
    with pytest.raises(DataError, match="cell 'cell17', gene 'gene4'"):
        check_counts(adata[10:, ::-1])


def test_missing_x_and_strange_dtype(adata: ad.AnnData) -> None:
    with pytest.raises(DataError, match="X is empty; pass layer='raw_counts'"):
        check_counts(ad.AnnData(obs=adata.obs, var=adata.var, layers={"raw_counts": adata.X}))
    with pytest.raises(DataError, match="dtype complex"):
        check_counts(ad.AnnData(X=adata.X.toarray().astype(complex)))


def test_prediction_takes_one_cell_even_an_empty_one(adata: ad.AnnData) -> None:
    check_counts(adata[:1], training=False)
    empty = ad.AnnData(X=np.zeros((1, 6), dtype=np.float32))
    with pytest.warns(CFMVCWarning, match="1 cell without a count"):
        check_counts(empty, training=False)
    with pytest.raises(DataError, match="0 cells and 6 genes; at least 1 cell"):
        check_counts(adata[:0], training=False)


def test_logarithms_are_doubted_even_when_fractions_are_allowed(adata: ad.AnnData) -> None:
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))
    with pytest.warns(CFMVCWarning, match="looks log-normalised"):
        check_counts(adata, allow_non_integer=True)


def test_csr_is_not_converted(adata: ad.AnnData) -> None:
    matrix = adata.X
    assert not convert_counts(adata)
    assert adata.X is matrix


def test_layer_is_converted(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X.tocsc()
    assert convert_counts(adata, "counts")
    assert isinstance(adata.layers["counts"], sparse.csr_matrix)
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), adata.X.toarray())
    with pytest.raises(UnknownConditionError, match="Did you mean 'counts'"):
        convert_counts(adata, "count")


@pytest.mark.parametrize("kind", [sparse.coo_matrix, sparse.coo_array, sparse.lil_matrix, sparse.csc_array])
def test_to_csr_keeps_values(kind: type, caplog: pytest.LogCaptureFixture) -> None:
    matrix = sparse.random(5, 4, density=0.5, random_state=np.random.default_rng(0))
    with caplog.at_level(logging.INFO, "cfmvc_scvi"):
        converted = to_csr(kind(matrix), "X")
    assert isinstance(converted, sparse.csr_matrix)
    np.testing.assert_array_equal(converted.toarray(), matrix.toarray())
    assert f"converted X from {kind.__name__} to csr_matrix" in caplog.text


def test_coo_is_checked_where_anndata_lets_it_in(adata: ad.AnnData) -> None:
    adata.X[17, 4] = -2
    names = {"obs_names": adata.obs_names, "var_names": adata.var_names}
    with pytest.raises(DataError, match="cell 'cell17', gene 'gene4'"):
        check_counts(SimpleNamespace(X=adata.X.tocoo(), shape=adata.shape, **names))


def test_backed_csc_stays_with_a_hint(adata: ad.AnnData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backed = stored(adata, "csc backed", tmp_path)
    with caplog.at_level(logging.INFO, "cfmvc_scvi"):
        assert not convert_counts(backed)
    assert "write it as CSR" in caplog.text


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path, rng: np.random.Generator) -> None:
    dense = rng.poisson(0.5, (40, 6)).astype(np.float32)
    rows = np.r_[2:30, 39]
    ad.AnnData(sparse.csr_matrix(dense)).write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r").X
    for matrix in (dense, dense.astype(int), sparse.csr_matrix(dense), sparse.csc_matrix(dense), backed):
        counts = CountRows(matrix, rows)
        assert counts.shape == (29, 6)
        for chosen in (slice(3, 9), slice(20, 99), np.array([0, 5, 28]), np.array([], dtype=int), slice(5, 5)):
            found = counts[chosen]
            assert sparse.isspmatrix_csr(found) and found.dtype == np.float32
            assert np.array_equal(found.toarray(), dense[rows][chosen])
