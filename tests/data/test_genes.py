from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfmvc_scvi.data import match_genes
from cfmvc_scvi.errors import CFMVCWarning

# pandas 3 has its own dtype for strings, which files and copies do not all keep
LABELS = {"check_names": False, "check_index_type": False, "check_column_type": False}
GENES = [f"gene{i}" for i in range(6)]


def test_matching_genes_are_left_alone(adata: ad.AnnData) -> None:
    assert match_genes(adata, pd.Index(GENES)) is adata


@given(st.permutations(GENES), st.integers(1, 6))
def test_values_follow_names(order: list[str], n_kept: int) -> None:
    counts = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    data = ad.AnnData(X=counts.copy(), obs=pd.DataFrame(index=list("abcd")), var=pd.DataFrame(index=GENES))
    matched = match_genes(data, order[:n_kept])
    assert list(matched.var_names) == order[:n_kept]
    np.testing.assert_array_equal(matched.X, counts[:, [GENES.index(gene) for gene in order[:n_kept]]])
    np.testing.assert_array_equal(data.X, counts)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense", "backed"])
@pytest.mark.parametrize("wanted", [["gene4", "new1", "gene0", "new2"], ["gene4", "gene0"]], ids=["padded", "subset"])
def test_every_storage(adata: ad.AnnData, tmp_path: Path, storage: str, wanted: list[str]) -> None:
    adata.layers["counts"] = adata.X * 2
    dense = adata.to_df()
    convert = {"csc": lambda x: x.tocsc(), "dense": lambda x: x.toarray()}.get(storage, lambda x: x)
    adata.X = convert(adata.X)
    adata.layers["counts"] = convert(adata.layers["counts"])
    adata.obsm["spatial"] = np.ones((24, 2))
    if storage == "backed":
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    if "new1" in wanted:
        with pytest.warns(CFMVCWarning, match="2 genes of the model not in the data, counted as zero: new1, new2"):
            matched = match_genes(adata, wanted, pad_missing=True)
    else:
        matched = match_genes(adata, wanted)
    expected = dense.reindex(columns=wanted, fill_value=np.float32(0))
    pd.testing.assert_frame_equal(matched.to_df(), expected, **LABELS)
    pd.testing.assert_frame_equal(matched.to_df("counts"), expected * 2, **LABELS)
    pd.testing.assert_frame_equal(matched.obs, adata.obs, **LABELS)
    np.testing.assert_array_equal(matched.obsm["spatial"], np.ones((24, 2)))
    assert not matched.is_view
    assert not matched.isbacked


def test_copy_is_new_to_scvi(adata: ad.AnnData) -> None:
    adata.uns.update(_scvi_uuid="1", _scvi_manager_uuid="2", kept=3)
    matched = match_genes(adata, GENES[::-1])
    assert dict(matched.uns) == {"kept": 3}
    assert adata.uns["_scvi_uuid"] == "1"
