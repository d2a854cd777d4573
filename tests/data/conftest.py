"""Small count data of two perturbations, two cell types and two donors."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse


@pytest.fixture
def adata() -> ad.AnnData:
    """24 cells x 6 genes in CSR; every (perturbation, cell type, donor) has cells, no cell or gene is empty."""
    n_cells, n_genes = 24, 6
    counts = np.random.default_rng(0).poisson(3.0, size=(n_cells, n_genes)) + 1
    cell = np.arange(n_cells)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(np.array(["control", "A", "B", "A+B"])[cell % 4]),
            "dose": np.where(cell % 4 == 0, np.nan, 0.5 + cell % 3),
            "cell_type": np.array(["B cells", "NK cells"])[cell // 4 % 2],
            "donor": np.array(["donor1", "donor2"])[cell // 8 % 2],
        },
        index=[f"cell{i}" for i in cell],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return ad.AnnData(X=sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
