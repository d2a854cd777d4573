"""Data saved with a model, and data given to a saved model: minified, multimodal, backed, damaged, of other genes."""

from __future__ import annotations

import os
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scvi
from mudata import MuData
from scipy.sparse import csr_matrix
from scvi.data import AnnDataManager, fields

from cfmvc_scvi.errors import CFMVCWarning, CorruptModelError, ModelFileError, UnsafeFileError
from cfmvc_scvi.model.persistence import SafePersistenceMixin

GENES = [f"gene_{i}" for i in range(12)]


class Model(SafePersistenceMixin, scvi.model.SCVI):
    """SCVI with safe files."""


def make_adata(seed=0):
    counts = np.random.default_rng(seed).poisson(2.0, (40, len(GENES))).astype(np.float32)
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(len(counts))])
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def model():
    adata = make_adata()
    Model.setup_anndata(adata)
    model = Model(adata, n_hidden=4, n_latent=3)
    model.module.eval()
    model.is_trained_ = True
    return model


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_data_that_no_save_has_written_are_not_picked_up(saved):
    anndata.io.write_h5ad(saved / "adata.h5ad", make_adata())
    with pytest.warns(CFMVCWarning, match="without data"):
        assert Model.load(saved, accelerator="cpu").adata is None


def test_saved_data_with_external_links_are_refused(model, tmp_path, monkeypatch):
    write = anndata.io.write_h5ad

    def write_with_link(path, adata, **kwargs):
        write(path, adata, **kwargs)
        with h5py.File(path, "a") as file:
            file["layers/counts"] = h5py.ExternalLink("/etc/hostname", "/")

    monkeypatch.setattr(anndata.io, "write_h5ad", write_with_link)
    model.save(tmp_path / "model", save_anndata=True)
    with pytest.raises(UnsafeFileError, match="/layers/counts"):
        Model.load(tmp_path / "model", accelerator="cpu")
    assert Model.load(tmp_path / "model", adata=False, accelerator="cpu").adata is None


def test_a_damaged_data_file_is_found(model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    with (tmp_path / "model" / "adata.h5ad").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    with pytest.raises(CorruptModelError, match="adata.h5ad"):
        Model.load(tmp_path / "model", accelerator="cpu")


def test_minified_data(model, tmp_path):
    qzm, qzv = model.get_latent_representation(return_dist=True)
    model.adata.obsm["X_latent_qzm"], model.adata.obsm["X_latent_qzv"] = qzm, qzv
    model.minify_adata()
    model.save(tmp_path / "model", save_anndata=True)
    back = Model.load(tmp_path / "model", accelerator="cpu")
    assert back.minified_data_type == model.minified_data_type
    np.testing.assert_array_equal(back.get_latent_representation(), qzm)


class MultimodalModel(SafePersistenceMixin, scvi.model.SCVI):
    """SCVI on one modality of a MuData."""

    @classmethod
    def setup_mudata(cls, mdata, size_factor_key=None, modalities=None, **kwargs):
        arguments = cls._get_setup_method_args(**locals())
        chosen = cls._create_modalities_attr_dict(modalities, {"setup_args": {"layer": None}})
        manager_fields = [
            fields.MuDataLayerField("X", None, mod_key=chosen.layer, mod_required=True),
            fields.MuDataCategoricalObsField("batch", None, mod_key=None),
            fields.MuDataCategoricalObsField("labels", None, mod_key=None),
        ]
        manager = AnnDataManager(fields=manager_fields, setup_method_args=arguments)
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)


@pytest.mark.filterwarnings("ignore::FutureWarning:mudata")
def test_multimodal_data(tmp_path):
    other = make_adata(seed=1)[:, :3].copy()
    other.var_names = ["a", "b", "c"]
    mdata = MuData({"rna": make_adata(), "other": other})
    MultimodalModel.setup_mudata(mdata, modalities={"layer": "rna"})
    model = MultimodalModel(mdata, n_hidden=4, n_latent=3)
    model.module.eval()
    model.is_trained_ = True
    model.save(tmp_path / "model", save_anndata=True)
    assert "mdata.h5mu" in os.listdir(tmp_path / "model")
    for data in (None, mdata.copy()):
        back = MultimodalModel.load(tmp_path / "model", data, accelerator="cpu")
        assert list(back.adata.mod) == ["rna", "other"]
        np.testing.assert_array_equal(model.get_latent_representation(), back.get_latent_representation())
    model.save(tmp_path / "model", overwrite=True)
    assert "mdata.h5mu" not in os.listdir(tmp_path / "model")


def test_a_subclass_may_match_the_genes(model, saved):
    class Matching(Model):
        @classmethod
        def _match_genes(cls, data, var_names, registry):
            return data[:, var_names].copy()

    shuffled = make_adata()[:, GENES[::-1]].copy()
    allowed = {"accelerator": "cpu", "allowed_classes_names_list": ["Model"]}
    back = Matching.load(saved, shuffled, **allowed)
    assert back.adata.var_names.tolist() == GENES
    np.testing.assert_array_equal(model.get_latent_representation(), back.get_latent_representation())


def test_data_without_counts_are_refused(saved):
    empty = make_adata()
    empty.X = csr_matrix(empty.shape, dtype=np.float32)
    with pytest.raises(ModelFileError, match="no counts"):
        Model.load(saved, adata=empty, accelerator="cpu")


def test_other_genes_are_announced(saved):
    other = make_adata()
    other.var_names = [f"other_{i}" for i in range(len(GENES))]
    with pytest.warns(UserWarning, match="var_names"):
        Model.load(saved, adata=other, accelerator="cpu")


def test_a_backed_model_keeps_its_file(tmp_path):
    path = tmp_path / "data.h5ad"
    anndata.io.write_h5ad(path, make_adata())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backed = anndata.io.read_h5ad(path, backed="r")
        Model.setup_anndata(backed)
        model = Model(backed, n_hidden=4, n_latent=3)
        model.save(tmp_path / "model", save_anndata=True)
    assert model.adata.filename == path
    assert model.adata.X[:].shape == (40, len(GENES))
    model.adata.file.close()
