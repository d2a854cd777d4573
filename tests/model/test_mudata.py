"""MuData in and out: what is predicted stands in the RNA modality, and all else is as it was."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scvi import settings

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.errors import DataError, UnknownConditionError, UnsupportedError
from cfmvc_scvi.shift import NicheResponse

IN_RNA = dict.fromkeys(("rna_layer", "perturbation_key", "labels_key"), "rna")


@pytest.fixture(autouse=True)
def as_mudata_will():
    with mudata.set_options(pull_on_update=False):
        yield


def together(rna: AnnData) -> MuData:
    """These cells with a second modality; batches are a column of the whole."""
    rng = np.random.default_rng(3)
    names = [f"protein{i}" for i in range(5)]
    protein = AnnData(rng.poisson(5.0, (rna.n_obs, 5)).astype(np.float32), obs=pd.DataFrame(index=rna.obs_names))
    protein.var_names = names
    both = MuData({"rna": rna, "protein": protein})
    both.obs["batch"] = rna.obs.pop("batch").to_numpy()
    return both


@pytest.fixture
def mdata(tiny_adata) -> MuData:
    return together(tiny_adata)


@pytest.fixture
def model(mdata, quick) -> CFMVC:
    CFMVC.setup_mudata(
        mdata, perturbation_key="perturbation", labels_key="cell_type", batch_key="batch", modalities=IN_RNA
    )
    model = CFMVC(mdata, n_intrinsic=4, n_technical=2, n_hidden=16, flow_kwargs={"n_hidden": 16})
    model.train(**quick)
    return model


def test_predictions_are_written_into_rna_and_the_rest_is_carried_along(mdata, model, tmp_path):
    protein, counts = mdata.mod["protein"].X.copy(), mdata.mod["rna"].X.copy()
    tl.counterfactual(mdata, model, "A", key_added="cf", seed=0)
    tl.latent(mdata, model)
    tl.effect(mdata, model, "A")
    tl.trust(mdata, model, "A")
    tl.interactions(mdata, model, "A+B")
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    back = mudata.read_h5mu(tmp_path / "cells.h5mu")
    alone = model.predict_counterfactual(perturbation="A", seed=0)
    assert (back.mod["rna"].layers["cf"] != alone.X).nnz == 0
    np.testing.assert_array_equal(back.mod["rna"].obsm["X_cf"], alone.obsm["X_cfmvc_counterfactual"])
    np.testing.assert_array_equal(back.mod["rna"].obsm["X_cfmvc"], model.get_latent_representation())
    assert {"effect", "trust", "interactions", "cf"} <= set(back.mod["rna"].uns)
    np.testing.assert_array_equal(back.mod["protein"].X, protein)
    assert (back.mod["rna"].X != counts).nnz == 0
    assert not set(back.mod["protein"].obsm) - {"X_umap"} and not back.mod["protein"].layers


def test_new_data_with_genes_in_another_order(mdata, model):
    known = model.predict_counterfactual(mdata, perturbation="B", seed=0)
    rna = mdata.mod["rna"].copy()
    rna.obs["batch"] = mdata.obs["batch"].to_numpy()
    shuffled = together(rna[:, ::-1].copy())
    again = model.predict_counterfactual(shuffled, perturbation="B", seed=0)
    assert list(again.var_names) == list(known.var_names) and (again.X != known.X).nnz == 0
    assert list(shuffled.mod["rna"].var_names) == list(known.var_names)[::-1]  # the data given stay as they are


def test_missing_genes_and_categories_are_named(mdata, model):
    rna = mdata.mod["rna"].copy()
    rna.obs["batch"] = mdata.obs["batch"].to_numpy()
    with pytest.raises(DataError, match="1 gene of the model not in the data"):
        model.predict_counterfactual(together(rna[:, 1:].copy()), perturbation="B")
    rna.obs["perturbation"] = rna.obs["perturbation"].astype(str).replace("A", "Z")
    with pytest.raises(UnknownConditionError, match="Z"):
        model.predict_counterfactual(together(rna), perturbation="B")


def test_tools_read_columns_where_they_are(mdata, model):
    known = tl.disentanglement(mdata, model, n_cells=200)
    assert set(known["factor"]) == {"perturbation", "batch"}
    control = (mdata.mod["rna"].obs["perturbation"] == "control").to_numpy()
    path = tl.counterfactual_trajectory(mdata, model, "A", times=2, indices=np.flatnonzero(control)[:20])
    assert path.n_obs == 40
    ranked = tl.rank_perturbations(mdata[control].copy(), model, mdata[~control].copy(), n_cells=60, n_resamples=5)
    assert "no change" in set(ranked["perturbation"])
    with pytest.raises(UnknownConditionError, match="perturbation"):
        tl.disentanglement(drop(mdata, "perturbation"), model)


def drop(mdata, column):
    rna = mdata.mod["rna"].copy()
    del rna.obs[column]
    return MuData({"rna": rna, "protein": mdata.mod["protein"]})


def test_a_query_of_new_batches(mdata, model, quick, tmp_path):
    query = mdata[:120].copy()
    query.obs["batch"] = "new"
    model.save(tmp_path / "reference")
    mapped = CFMVC.load_query_data(query, str(tmp_path / "reference"), accelerator="cpu")
    mapped.train(**quick, plan_kwargs={"weight_decay": 0.0})
    predicted = mapped.predict_counterfactual(perturbation="A", seed=0)
    assert predicted.n_obs == 120 and mapped.is_query_
    tl.counterfactual(query, mapped, "A", key_added="cf", seed=0)
    assert (query.mod["rna"].layers["cf"] != predicted.X).nnz == 0
    mapped.save(tmp_path / "query", save_anndata=True)
    back = CFMVC.load(tmp_path / "query", accelerator="cpu")
    assert (back.predict_counterfactual(perturbation="A", seed=0).X != predicted.X).nnz == 0


def test_cells_without_counts_are_refused(mdata):
    arguments = {"perturbation_key": "perturbation", "modalities": IN_RNA}
    partly = MuData({"rna": mdata.mod["rna"][5:].copy(), "protein": mdata.mod["protein"]})
    with pytest.raises(DataError, match="5 of 360 cells are not in modality 'rna'"):
        CFMVC.setup_mudata(partly, **arguments)
    other = MuData({"protein": mdata.mod["protein"], "rna": mdata.mod["rna"][::-1].copy()})
    with pytest.raises(DataError, match="another order"):
        CFMVC.setup_mudata(other, **arguments)
    CFMVC.setup_mudata(MuData({name: part[other.obs_names].copy() for name, part in other.mod.items()}), **arguments)


@pytest.mark.parametrize("in_rna", [True, False])
def test_tissues_of_several_modalities_are_those_of_their_rna(tiny_adata, quick, in_rna):
    """Coordinates in the RNA modality or in the whole; the same model and answers as of the RNA alone."""
    place = 10 * np.random.default_rng(0).random((tiny_adata.n_obs, 2))
    tiny_adata.obsm["spatial"] = place
    alone, keys = tiny_adata.copy(), {"perturbation_key": "perturbation", "labels_key": "cell_type"}
    CFMVC.setup_anndata(alone, **keys, batch_key="batch", spatial_key="spatial")
    mdata = together(tiny_adata)
    if not in_rna:
        mdata.obsm["spatial"] = mdata.mod["rna"].obsm.pop("spatial")
    modalities = IN_RNA | ({"spatial_key": "rna"} if in_rna else {})
    CFMVC.setup_mudata(mdata, **keys, batch_key="batch", spatial_key="spatial", modalities=modalities)
    niche = NicheResponse(0.8, 0.0, np.ones(4), 0.01)
    region, written = np.arange(mdata.n_obs) < 30, []
    for cells in (alone, mdata):
        settings.seed = 0
        model = CFMVC(cells, n_intrinsic=4, n_technical=2, n_hidden=16, flow_kwargs={"n_hidden": 16})
        model.train(**quick)
        assert not model.get_niche_response("A").found
        tl.virtual_tissue(cells, model, "A", region, niche=niche, seed=1)
        written.append(cells if cells is alone else cells.mod["rna"])
    assert (written[0].layers["virtual_tissue"] != written[1].layers["virtual_tissue"]).nnz == 0
    assert written[1].layers["virtual_tissue"].sum() != written[1].X.sum()
    np.testing.assert_array_equal(written[0].obs["virtual_tissue"], written[1].obs["virtual_tissue"])
    assert written[0].uns["virtual_tissue"]["decay_length"] == written[1].uns["virtual_tissue"]["decay_length"]
    holder = mdata.mod["rna"] if in_rna else mdata
    holder.obsm["spatial"] = np.full_like(place, np.nan)
    with pytest.raises(DataError, match="NaN"):
        model.predict_counterfactual(mdata.copy(), perturbation="A")


def test_coordinates_of_other_modalities_are_refused(mdata):
    mdata.mod["protein"].obsm["spatial"] = np.zeros((mdata.n_obs, 2))
    keys = {"perturbation_key": "perturbation", "spatial_key": "spatial"}
    with pytest.raises(DataError, match="'protein'.*obsm of the data, or of modality 'rna'"):
        CFMVC.setup_mudata(mdata, **keys, modalities=IN_RNA | {"spatial_key": "protein"})
    with pytest.raises(UnknownConditionError, match="spatial"):
        CFMVC.setup_mudata(mdata, **keys, modalities=IN_RNA | {"spatial_key": "rna"})


def test_what_is_wrong_with_several_modalities_is_said(mdata, model):
    keys = {"perturbation_key": "perturbation", "labels_key": "cell_type", "batch_key": "batch"}
    before = mdata.mod["rna"].obs.columns.tolist()
    found = tl.diagnose(mdata, **keys, modalities=IN_RNA)
    alone = mdata.mod["rna"].copy()
    alone.obs["batch"] = mdata.obs["batch"].to_numpy()
    pd.testing.assert_frame_equal(found, tl.diagnose(alone, **keys))
    lacking = tl.diagnose(mdata, **keys, modalities=IN_RNA, control_category="nobody")
    pd.testing.assert_frame_equal(lacking, tl.diagnose(alone, **keys, control_category="nobody"))
    assert "no_control" in set(lacking["finding"])
    assert set(found["finding"]) <= set(tl.diagnose(model)["finding"])
    assert mdata.mod["rna"].obs.columns.tolist() == before
    mdata.mod["rna"].layers["log"] = np.log1p(mdata.mod["rna"].X.toarray())
    assert "bad_counts" in set(tl.diagnose(mdata, **keys, layer="log", modalities=IN_RNA)["finding"])
    mdata.mod["rna"].obs.loc[mdata.obs_names[0], "perturbation"] = np.nan
    assert "bad_labels" in set(tl.diagnose(mdata, **keys, modalities=IN_RNA)["finding"])
    assert "bad_labels" in set(tl.diagnose(mdata, perturbation_key="nowhere", modalities=IN_RNA)["finding"])
    with pytest.raises(DataError, match="modalities="):
        tl.diagnose(mdata, **keys)
    with pytest.raises(UnknownConditionError, match="dna"):
        tl.diagnose(mdata, **keys, modalities={"rna_layer": "dna"})


def test_columns_of_one_name_in_two_modalities_are_told_apart(mdata):
    mdata.mod["protein"].obs["group"] = mdata.mod["rna"].obs["perturbation"].reindex(mdata.mod["protein"].obs_names)
    mdata.mod["rna"].obs["group"] = mdata.mod["rna"].obs["cell_type"]
    keys = {"perturbation_key": "group", "labels_key": "group"}
    found = tl.diagnose(mdata, **keys, modalities=IN_RNA | {"perturbation_key": "protein", "labels_key": "rna"})
    assert "no_control" not in set(found["finding"])


def test_what_is_no_data_is_refused():
    with pytest.raises(UnsupportedError, match="DataFrame"):
        tl.diagnose(pd.DataFrame())
