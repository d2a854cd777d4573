"""Features of genes from co-expression among control cells."""

import numpy as np
import pytest
from anndata import AnnData

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.pp import gene_embeddings


@pytest.fixture
def cells(rng):
    """Two programmes of genes, 0-9 and 10-19, that vary among 300 cells, and 20 genes that do not; half is control."""
    programme = np.exp(0.8 * rng.standard_normal((300, 2)))
    rate = np.ones((300, 40))
    rate[:, :10] = programme[:, :1]
    rate[:, 10:20] = programme[:, 1:]
    adata = AnnData(rng.poisson(5 * rate).astype(np.float32))
    adata.var_names = [f"gene{i}" for i in range(40)]
    adata.obs["perturbation"] = np.where(np.arange(300) % 2, "control", "gene3")
    return adata


def test_genes_of_one_programme_are_near(cells):
    table = gene_embeddings(cells, [f"gene{i}" for i in range(20)])
    distance = np.linalg.norm(table.to_numpy()[:, None] - table.to_numpy(), axis=-1)
    inside = distance[:10, :10][np.triu_indices(10, 1)].mean()
    assert inside < 0.4 * distance[:10, 10:].mean()


def test_distances_are_those_of_correlation_profiles(cells):
    table = gene_embeddings(cells, list(cells.var_names), n_components=40).to_numpy()
    control = cells[cells.obs["perturbation"] == "control"].X
    profile = np.corrcoef(np.log1p(control / control.sum(axis=1, keepdims=True) * 1e4).T)
    expected = np.linalg.norm(profile[:, None] - profile, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(table[:, None] - table, axis=-1), expected, atol=1e-5)


def test_perturbed_cells_are_not_read(cells):
    before = gene_embeddings(cells, ["gene3", "gene12"])
    cells.X[cells.obs["perturbation"] == "gene3"] = 0
    after = gene_embeddings(cells, ["gene3", "gene12"])
    np.testing.assert_array_equal(before, after)


def test_genes_that_were_not_measured_or_do_not_vary_have_nothing(cells):
    cells.X[:, 5] = 0
    table = gene_embeddings(cells, ["gene3", "absent", "gene5"])
    assert table.isna().all(axis=1).tolist() == [False, True, True]


def test_contexts_are_centred(cells):
    cells.obs["type"] = np.where(np.arange(300) % 4 < 2, "a", "b")
    cells.X[(cells.obs["type"] == "a").to_numpy(), 30:] *= 10
    cells.X[(cells.obs["type"] == "b").to_numpy(), :20] *= 10
    keys = ["gene2", "gene8", "gene35"]
    inside = gene_embeddings(cells, keys, context_key="type").to_numpy()
    across = gene_embeddings(cells, keys).to_numpy()
    near, far = (np.linalg.norm(inside[0] - inside[i]) for i in (1, 2))
    assert near < 0.7 * far
    assert np.linalg.norm(across[0]) > np.linalg.norm(inside[0])


@pytest.mark.parametrize(
    ("genes", "options", "message"),
    [
        (["gene1", "gene1"], {}, "named twice"),
        (["absent"], {}, "none of the 1 genes"),
        (["gene1"], {"n_components": 0}, "at least 1"),
        (["gene1"], {"control": "nobody"}, "needs control cells"),
    ],
)
def test_bad_input_is_named(cells, genes, options, message):
    with pytest.raises(DataError, match=message):
        gene_embeddings(cells, genes, **options)
