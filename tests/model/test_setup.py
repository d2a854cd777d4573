"""Registration: every key, no key, MuData, and what is refused before anything is trained."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData

from cfmvc_scvi import CFMVC, datasets
from cfmvc_scvi.errors import CFMVCWarning, DataError, UnknownConditionError


@pytest.fixture
def full_adata(tiny_adata, rng):
    obs = tiny_adata.obs
    obs["dose"] = np.where(obs["perturbation"] == "control", 0.0, rng.choice([0.5, 2.0], len(obs)))
    obs["donor"] = rng.choice(["d1", "d2"], len(obs))
    obs["depth"] = np.asarray(tiny_adata.X.sum(axis=1)).ravel()
    obs["lane"], obs["age"] = rng.choice(["l1", "l2"], len(obs)), rng.normal(size=len(obs))
    tiny_adata.obsm["spatial"] = rng.uniform(size=(len(obs), 2))
    return tiny_adata


ALL_KEYS = {
    "dose_key": "dose",
    "sample_key": "donor",
    "size_factor_key": "depth",
    "spatial_key": "spatial",
    "categorical_covariate_keys": ["lane"],
    "continuous_covariate_keys": ["age"],
}


def test_every_key(full_adata, make_model, quick, tmp_path):
    model = make_model(full_adata, ALL_KEYS)
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation()).all()
    predicted = model.predict_counterfactual(indices=[0, 5], perturbation="A", dose=1.0, seed=0)
    assert predicted.shape == (2, 60)
    model.save(tmp_path / "model")
    back = CFMVC.load(tmp_path / "model", adata=full_adata.copy(), accelerator="cpu")
    np.testing.assert_array_equal(back.get_latent_representation(), model.get_latent_representation())
    with pytest.raises(DataError, match="spatial_key"):
        model.train(stage="joint", **quick)


@pytest.mark.parametrize("key", sorted(ALL_KEYS))
def test_each_key_alone(full_adata, make_model, quick, key):
    model = make_model(full_adata, {"batch_key": None, "labels_key": None, key: ALL_KEYS[key]})
    model.train(**quick)
    assert model.predict_counterfactual(indices=[0, 5], perturbation="A", seed=0).X.sum() > 0


def test_setup_leaves_the_data_as_they_are_but_for_its_own_columns(full_adata):
    before = full_adata.copy()
    CFMVC.setup_anndata(full_adata, perturbation_key="perturbation", batch_key="batch", dose_key="dose")
    own = [column for column in full_adata.obs if not column.startswith("_scvi")]
    pd.testing.assert_frame_equal(full_adata.obs[own], before.obs)
    assert (full_adata.X != before.X).nnz == 0
    assert {key for key in full_adata.obsm if not key.startswith("_scvi")} == {"spatial"}


def test_a_view_becomes_data_of_its_own(tiny_adata, make_model, quick):
    view = tiny_adata[:300]
    assert view.is_view
    model = make_model(view)
    assert not view.is_view
    assert not any(column.startswith("_scvi") for column in tiny_adata.obs)
    assert "_scvi_uuid" not in tiny_adata.uns
    model.train(**quick)
    assert model.get_latent_representation().shape == (300, 4)
    assert model.get_latent_representation(tiny_adata[10:20]).shape == (10, 4)


def spoil(adata, how):
    adata.X = adata.X.toarray()
    if how == "negative":
        adata.X[2, 3] = -1
    elif how == "nan":
        adata.X[2, 3] = np.nan
    elif how == "inf":
        adata.X[2, 3] = np.inf
    elif how == "logged":
        adata.X = np.log1p(adata.X)
    elif how == "fraction":
        adata.X[2, 3] = 0.5


BAD_COUNTS = [
    ("negative", "1 negative value.*'cell2', gene 'gene3'"),
    ("nan", "1 NaN value.*'cell2', gene 'gene3'"),
    ("inf", "1 infinite value.*'cell2', gene 'gene3'"),
    ("logged", "looks log-normalised"),
    ("fraction", "1 non-integer value.*allow_non_integer"),
]


@pytest.mark.parametrize("how,message", BAD_COUNTS)
def test_bad_counts_are_refused_at_setup_and_at_inference(tiny_adata, trained, how, message):
    spoil(tiny_adata, how)
    with pytest.raises(DataError, match=message):
        CFMVC.setup_anndata(tiny_adata)
    with pytest.raises(DataError, match=message):
        trained.get_latent_representation(tiny_adata)


def test_corrected_counts_on_request(tiny_adata, make_model, quick):
    spoil(tiny_adata, "fraction")
    model = make_model(tiny_adata, {"allow_non_integer": True})
    model.train(**quick)
    assert np.isfinite(model.get_latent_representation(tiny_adata.copy())).all()


@pytest.mark.parametrize("key", ["batch_key", "labels_key", "perturbation_key", "dose_key", "sample_key"])
def test_a_missing_column_is_named_with_what_is_there(tiny_adata, key):
    options = {"perturbation_key": "perturbation", key: "perturbatoin"}
    with pytest.raises(UnknownConditionError, match="'perturbatoin'.*perturbation"):
        CFMVC.setup_anndata(tiny_adata, **options)


@pytest.mark.parametrize("key", ["batch", "cell_type", "perturbation"])
def test_a_missing_label_names_the_cells(tiny_adata, key):
    tiny_adata.obs.loc["cell7", key] = np.nan
    keys = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
    with pytest.raises(DataError, match=rf"1 cell has no value in obs\['{key}'\].*cell7"):
        CFMVC.setup_anndata(tiny_adata, **keys)


def test_control_must_be_there(tiny_adata):
    with pytest.raises(DataError, match="no cell has the control label 'ctrl'.*control"):
        CFMVC.setup_anndata(tiny_adata, perturbation_key="perturbation", control_category="ctrl")


@pytest.mark.parametrize("dose", [-1.0, np.nan])
def test_bad_doses_are_refused(full_adata, dose):
    cell = full_adata.obs_names[np.flatnonzero(full_adata.obs["perturbation"] == "A")[0]]
    full_adata.obs.loc[cell, "dose"] = dose
    with pytest.raises(DataError, match=cell):
        CFMVC.setup_anndata(full_adata, perturbation_key="perturbation", dose_key="dose")


def test_bad_coordinates_are_refused(full_adata):
    full_adata.obsm["spatial"][4, 0] = np.nan
    with pytest.raises(DataError, match=r"obsm\['spatial'\].*cell4"):
        CFMVC.setup_anndata(full_adata, spatial_key="spatial")


def test_repeated_genes_are_refused(tiny_adata):
    tiny_adata.var_names = ["gene1"] * 2 + list(tiny_adata.var_names[2:])
    with pytest.raises(DataError, match="var_names_make_unique"):
        CFMVC.setup_anndata(tiny_adata)


def test_a_falsy_new_category_is_refused(tiny_adata, make_model, quick):
    tiny_adata.obs["batch"] = tiny_adata.obs["batch"].cat.codes.to_numpy() + 1
    model = make_model(tiny_adata)
    model.train(stage="representation", **quick)
    new = tiny_adata.copy()
    new.obs["batch"] = 0
    with pytest.raises(UnknownConditionError, match="0"):
        model.get_latent_representation(new)


def test_unused_categories_get_no_row(tiny_adata, make_model):
    tiny_adata.obs["batch"] = tiny_adata.obs["batch"].cat.add_categories("b3")
    assert make_model(tiny_adata).summary_stats.n_batch == 2


def test_a_coo_layer_and_csr_array_are_converted(tiny_adata, make_model, quick):
    tiny_adata.layers["counts"] = sp.csr_array(tiny_adata.X)
    model = make_model(tiny_adata, {"layer": "counts"})
    model.train(**quick)
    assert isinstance(tiny_adata.layers["counts"], sp.csr_matrix)


@pytest.fixture
def mdata(tiny_adata, rng):
    protein = tiny_adata[:, :5].copy()
    protein.var_names = [f"protein{i}" for i in range(5)]
    protein.obs = protein.obs[[]]
    with mudata.set_options(pull_on_update=False):
        both = MuData({"rna": tiny_adata, "protein": protein})
        both.obs["lane"] = rng.choice(["l1", "l2"], both.n_obs)
        yield both


def setup_mudata(mdata):
    in_rna = dict.fromkeys(("rna_layer", "perturbation_key", "labels_key", "batch_key"), "rna")
    CFMVC.setup_mudata(
        mdata,
        perturbation_key="perturbation",
        labels_key="cell_type",
        batch_key="batch",
        categorical_covariate_keys=["lane"],
        modalities=in_rna,
    )


def test_mudata_trains_predicts_saves_and_loads(mdata, trained, quick, tmp_path):
    setup_mudata(mdata)
    model = CFMVC(mdata, n_intrinsic=4, n_technical=2, n_hidden=16, flow_kwargs={"n_hidden": 16})
    model.train(**quick)
    latent = model.get_latent_representation()
    assert latent.shape == (360, 4)
    predicted = model.predict_counterfactual(perturbation="A", seed=0)
    assert predicted.shape == (360, 60)
    model.save(tmp_path / "model", save_anndata=True)
    back = CFMVC.load(tmp_path / "model", accelerator="cpu")
    np.testing.assert_array_equal(back.get_latent_representation(), latent)
    assert (back.predict_counterfactual(perturbation="A", seed=0).X != predicted.X).nnz == 0


def test_mudata_is_checked_like_anndata(mdata):
    with pytest.raises(ValueError, match="rna_layer"):
        CFMVC.setup_mudata(mdata)
    types, perturbation = mdata.mod["rna"].obs["cell_type"], mdata.mod["rna"].obs["perturbation"]
    bad = MuData({"rna": mdata.mod["rna"][~((types == "T") & (perturbation == "control"))].copy()})
    bad.obs["lane"] = "l1"
    with pytest.warns(CFMVCWarning, match="without a control cell: T"):
        setup_mudata(bad)
    mdata.mod["rna"].X.data[0] = np.nan
    with pytest.raises(DataError, match="1 NaN value"):
        setup_mudata(mdata)


def test_simulated_data_with_combinations_and_doses(make_model, quick):
    adata = datasets.simulated_perturbation()
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)[:600]].copy()
    model = make_model(adata, {"dose_key": "dose" if "dose" in adata.obs else None})
    model.train(**quick)
    assert model.module.flow is not None
    assert np.isfinite(model.history["flow_loss_train"].to_numpy(dtype=float)).all()
