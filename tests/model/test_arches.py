"""Query data of new batches are mapped onto a trained model, which keeps what it knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import CFMVCWarning, DataError, NotTrainedError, UnknownConditionError

QUERY = {"plan_kwargs": {"weight_decay": 0.0}}


@pytest.fixture
def query_adata(tiny_adata):
    query = tiny_adata[:120].copy()
    query.obs["batch"] = "new"
    query.obs_names = [f"query{i}" for i in range(120)]
    return query


@pytest.fixture
def query(trained, query_adata):
    return CFMVC.load_query_data(query_adata, trained, accelerator="cpu")


def test_a_query_model_is_untrained_and_knows_its_reference(query, trained):
    assert query.is_query_
    assert not query.is_trained
    assert query.trained_stages_ == ["flow"]
    assert query.train_indices is None
    with pytest.raises(NotTrainedError, match="'representation'"):
        query.get_latent_representation()
    assert query._reference.contexts == trained._reference.contexts


def test_training_a_query_moves_new_batches_only(query, trained, quick, weights):
    before, flow = weights(query), weights(trained)
    query.train(**quick, **QUERY)
    assert query.trained_stages_ == ["representation", "flow"]
    after = weights(query)
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())
    for name, tensor in flow.items():
        if name.startswith(("flow.", "latent_")):
            assert torch.equal(tensor, after[name]), name
    known = trained.adata.copy()
    latent = trained.get_latent_representation(part="both")
    np.testing.assert_allclose(query.get_latent_representation(known, part="both"), latent, atol=1e-5)
    assert len(query.train_indices) == 108
    assert len(query.history["train_loss"]) == 2
    assert not any(key.startswith("flow") for key in query.history)


def test_counterfactuals_of_query_cells(query, quick, tmp_path):
    query.train(**quick, **QUERY)
    predicted = query.predict_counterfactual(perturbation="A", seed=0)
    assert predicted.shape == (120, 60)
    treated = (query.adata.obs["perturbation"] == "A").to_numpy()
    assert (predicted.X[treated] != query.adata.X[treated]).nnz == 0
    assert (predicted.X[~treated] != query.adata.X[~treated]).nnz > 0
    query.save(tmp_path / "query")
    back = CFMVC.load(tmp_path / "query", adata=query.adata.copy(), accelerator="cpu")
    assert back.is_query_
    assert (back.predict_counterfactual(perturbation="A", seed=0).X != predicted.X).nnz == 0


def test_the_flow_of_a_query_trains_when_asked(query, quick, weights):
    query.train(**quick, **QUERY)
    before = weights(query)
    query.train(stage="flow", **quick)
    changed = {name for name, tensor in weights(query).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("flow.") for name in changed)
    with pytest.raises(DataError, match="joint"):
        query.train(stage="joint", **quick)


def test_contexts_unknown_to_the_reference(trained, query_adata, quick):
    query_adata.obs["cell_type"] = query_adata.obs["cell_type"].astype(str).replace("T", "NK")
    query = CFMVC.load_query_data(query_adata, trained, accelerator="cpu")
    query.train(**quick, **QUERY)
    assert query.get_latent_representation().shape == (120, 4)
    known, new = (np.flatnonzero((query_adata.obs["cell_type"] == name).to_numpy()) for name in ("B", "NK"))
    assert query.predict_counterfactual(indices=known[:3], perturbation="B", seed=0).n_obs == 3
    with pytest.raises(UnknownConditionError, match="NK"):
        query.predict_counterfactual(indices=new[:3], perturbation="B", seed=0)
    with pytest.warns(CFMVCWarning, match=f"{len(new)} of 120 cells"):
        query.train(stage="flow", **quick)


def test_unknown_perturbations_and_missing_genes_are_refused(trained, query_adata):
    with pytest.raises(DataError, match="1 gene of the model not in the data"):
        CFMVC.load_query_data(query_adata[:, 1:].copy(), trained, accelerator="cpu")
    query_adata.obs["perturbation"] = query_adata.obs["perturbation"].astype(str).replace("A", "Z")
    with pytest.raises(UnknownConditionError, match="Z"):
        CFMVC.load_query_data(query_adata, trained, accelerator="cpu")


def test_genes_of_a_query_are_matched_or_padded(trained, query_adata, quick):
    shuffled = query_adata[:, ::-1].copy()
    query = CFMVC.load_query_data(shuffled, trained, accelerator="cpu")
    assert list(query.adata.var_names) == list(trained.adata.var_names)
    fewer = query_adata[:, 5:].copy()
    CFMVC.prepare_query_anndata(fewer, trained)
    assert list(fewer.var_names) == list(trained.adata.var_names)
    padded = CFMVC.load_query_data(fewer, trained, accelerator="cpu")
    padded.train(**quick, **QUERY)
    assert np.isfinite(padded.get_latent_representation()).all()


def test_an_unfrozen_query_is_a_model_of_its_own(trained, query_adata, quick):
    query = CFMVC.load_query_data(query_adata, trained, accelerator="cpu", unfrozen=True)
    assert not query.is_query_
    assert query.trained_stages_ == []
    query.train(**quick)
    assert query.trained_stages_ == ["representation", "flow"]
    assert set(query._reference.panel.names) <= set(query_adata.obs_names)


def test_a_query_of_a_saved_reference(trained, query_adata, quick, tmp_path):
    trained.save(tmp_path / "reference")
    query = CFMVC.load_query_data(query_adata, str(tmp_path / "reference"), accelerator="cpu")
    query.train(**quick, **QUERY)
    assert query.predict_counterfactual(indices=[0, 1], perturbation="B", seed=0).n_obs == 2
