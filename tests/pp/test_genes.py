import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.pp import leave_out, select_genes


def genes(*numbers):
    return [f"gene{number}" for number in numbers]


def test_number_and_order_of_names(tiny_adata):
    chosen = select_genes(tiny_adata, 20)
    assert isinstance(chosen, pd.Index) and len(chosen) == 20
    assert list(chosen) == [name for name in tiny_adata.var_names if name in set(chosen)]
    assert list(select_genes(tiny_adata, 20)) == list(chosen)


def test_all_genes_if_there_are_no_more(tiny_adata):
    assert list(select_genes(tiny_adata, 1000)) == list(tiny_adata.var_names)


def test_changed_genes_are_found(tiny_adata):
    changed = set(select_genes(tiny_adata, 20, changed_share=1.0, context_key="cell_type"))
    assert len(changed & set(genes(*range(20)))) >= 14  # A changes 0-9, B changes 10-19; by chance 7


def test_context_shows_what_opposite_effects_hide(tiny_adata):
    """B quarters genes 10-19 in T and doubles them elsewhere; drop A, so that nothing else is to be found."""
    cells = tiny_adata[tiny_adata.obs["perturbation"] != "A"]
    target = set(genes(*range(10, 20)))
    within = set(select_genes(cells, 10, changed_share=1.0, context_key="cell_type"))
    across = set(select_genes(cells, 10, changed_share=1.0))
    assert len(within & target) >= len(across & target)
    assert len(within & target) >= 8


def test_held_out_cells_decide_nothing(tiny_adata):
    train = leave_out(tiny_adata, context="T").train
    chosen = select_genes(tiny_adata, 15, mask=train, context_key="cell_type")
    counts = tiny_adata.X.toarray()
    counts[~train] = counts[~train][:, ::-1] * 7
    altered = tiny_adata.copy()
    altered.X = sparse.csr_matrix(counts)
    assert list(select_genes(altered, 15, mask=train, context_key="cell_type")) == list(chosen)
    assert list(select_genes(altered, 15, context_key="cell_type")) != list(chosen)


def test_targets_and_wanted_genes_are_kept(tiny_adata):
    quiet = tiny_adata.copy()
    counts = quiet.X.toarray()
    counts[:, [30, 40, 50]] = 0
    quiet.X = sparse.csr_matrix(counts)
    quiet.obs["perturbation"] = quiet.obs["perturbation"].astype(str).replace({"A": "gene30", "B": "gene30+gene40"})
    assert not set(genes(30, 40, 50)) & set(select_genes(tiny_adata, 12, changed_share=0.0, keep=()))
    assert set(genes(30, 40, 50)) <= set(select_genes(quiet, 12, keep=["gene50"]))


def test_variable_genes_fill_the_rest(tiny_adata, rng):
    counts = np.tile(rng.poisson(3.0, 60).astype(np.float32), (360, 1))
    counts[:, 7] = 200 * (np.arange(360) % 2)
    tiny_adata.X = sparse.csr_matrix(rng.poisson(counts + 1).astype(np.float32))
    assert "gene7" in select_genes(tiny_adata, 1, changed_share=0.0)


def test_variance_between_batches_does_not_count_within_batches(tiny_adata, rng):
    counts = np.full((360, 60), 5.0)
    counts[tiny_adata.obs["batch"] == "b1", 3] = 100.0
    counts[rng.random(360) < 0.3, 4] = 40.0
    tiny_adata.X = sparse.csr_matrix(rng.poisson(counts).astype(np.float32))
    assert list(select_genes(tiny_adata, 1, changed_share=0.0)) == ["gene3"]
    assert list(select_genes(tiny_adata, 1, changed_share=0.0, batch_key="batch")) == ["gene4"]


def test_counts_of_a_layer(tiny_adata):
    expected = select_genes(tiny_adata, 10)
    tiny_adata.layers["counts"] = tiny_adata.X.copy()
    tiny_adata.X = sparse.csr_matrix(np.log1p(tiny_adata.X.toarray()))
    assert list(select_genes(tiny_adata, 10, layer="counts")) == list(expected)
    with pytest.raises(DataError, match="log-normalised"):
        select_genes(tiny_adata, 10)


def test_without_control_cells_only_variance_decides(tiny_adata):
    perturbed = tiny_adata[tiny_adata.obs["perturbation"] != "control"]
    assert len(select_genes(perturbed, 10)) == 10


def test_data_stay_as_they_are(tiny_adata):
    before = tiny_adata.copy()
    select_genes(tiny_adata, 10, batch_key="batch", context_key="cell_type")
    assert list(tiny_adata.var.columns) == list(before.var.columns) and not tiny_adata.uns
    assert (tiny_adata.X != before.X).nnz == 0 and tiny_adata.obs.equals(before.obs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.ones(3, dtype=bool)}, "mask must be boolean"),
        ({"mask": np.ones(360)}, "mask must be boolean"),
        ({"changed_share": 1.5}, "changed_share"),
        ({"n_genes": 0}, "n_genes must be at least 1"),
        ({"keep": ["gene0", "unheard"]}, "1 genes to keep are not in the data, first 'unheard'"),
        ({"keep": genes(*range(11))}, "11 genes are to be kept but only 10"),
        ({"mask": np.zeros(360, dtype=bool)}, "0 cells"),
    ],
)
def test_impossible_requests(tiny_adata, arguments, message):
    with pytest.raises(DataError, match=message):
        select_genes(tiny_adata, **({"n_genes": 10} | arguments))


@pytest.mark.parametrize("key", ["perturbation_key", "context_key", "batch_key"])
def test_unknown_column(tiny_adata, key):
    with pytest.raises(UnknownConditionError, match="unheard"):
        select_genes(tiny_adata, 10, **{key: "unheard"})
