"""Saving and loading a model of scvi-tools with the mixin: nothing is lost, nothing is executed, nothing is ignored."""

from __future__ import annotations

import inspect
import json
import os

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scvi.model.base import BaseModelClass

from cfmvc_scvi.errors import CFMVCWarning, ModelFileError, UnsafeFileError, UnsupportedError
from cfmvc_scvi.model.persistence import SafePersistenceMixin

GENES = [f"gene_{i}" for i in range(12)]


class Model(SafePersistenceMixin, scvi.model.SCVI):
    """SCVI with more to save."""

    def __init__(self, adata=None, registry=None, n_hidden=4, n_latent=3):
        super().__init__(adata, registry, n_hidden=n_hidden, n_latent=n_latent)
        self.stage_history_ = {}
        self.shift_ = None
        self.table = None
        self.init_params_ = self._get_init_params(locals())

    def _extra_state(self):
        return {} if self.table is None else {"table": self.table}

    def _load_extra_state(self, state):
        assert state
        self.table = state["table"]


class Sibling(Model):
    """The same model under another name."""


class OtherModel(SafePersistenceMixin, scvi.model.SCVI):
    """Another class, which knows none of the attributes of `Model`."""


def make_adata(n_cells=40, seed=0):
    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(
        rng.poisson(2.0, (n_cells, len(GENES))).astype(np.float32),
        obs=pd.DataFrame(
            {
                "donor": pd.Categorical([f"donor {i % 3}" for i in range(n_cells)]),
                "lane": pd.Categorical([i % 2 for i in range(n_cells)]),
                "age": rng.normal(size=n_cells),
            },
            index=[f"cell_{i}" for i in range(n_cells)],
        ),
        var=pd.DataFrame(index=GENES),
    )
    return adata


def make_model(cls=Model):
    adata = make_adata()
    cls.setup_anndata(adata, batch_key="donor", categorical_covariate_keys=["lane"], continuous_covariate_keys=["age"])
    model = cls(adata, n_hidden=4, n_latent=3)
    model.is_trained_ = True  # as after training, at no cost
    model.train_indices_ = np.arange(0, 30)
    model.validation_indices_ = np.arange(30, 40)
    model.test_indices_ = np.array([], dtype=np.int64)
    loss = pd.DataFrame({"train_loss": np.array([3.5, np.nan, 0.1], dtype=object)})
    loss.index.name = "epoch"
    model.history_ = {"train_loss": loss}
    for name, buffer in model.module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape))
    model.module.eval()
    return model


def make_full_model():
    model = make_model()
    model.stage_history_ = {"flow": [1.0, float("inf")], 2: None}
    model.shift_ = np.float32(0.1)
    model.table = pd.DataFrame({"effect": [0.5, -0.0]}, index=["IFN", "PMA"])
    return model


@pytest.fixture
def model():
    return make_full_model()


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def assert_same_model(a, b):
    state_a, state_b = a.module.state_dict(), b.module.state_dict()
    assert list(state_a) == list(state_b)
    for name, tensor in state_a.items():
        assert tensor.dtype == state_b[name].dtype
        assert tensor.numpy().tobytes() == state_b[name].numpy().tobytes(), name
    for name in ("train_indices", "validation_indices", "test_indices"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True)
    assert a.history.keys() == b.history.keys()
    for key, frame in a.history.items():
        pd.testing.assert_frame_equal(frame, b.history[key], check_exact=True)
        assert frame.index.name == b.history[key].index.name
    assert a.init_params_ == b.init_params_
    assert (a.is_trained, a.run_name, a.run_id) == (b.is_trained, b.run_name, b.run_id)


def flat(registry, prefix=""):
    """Registry as one level; arrays as lists."""
    out = {}
    for key, value in registry.items():
        if isinstance(value, dict) or hasattr(value, "items"):
            out |= flat(value, f"{prefix}/{key}")
        else:
            out[f"{prefix}/{key}"] = value.tolist() if isinstance(value, np.ndarray) else value
    return out


def test_round_trip_with_data_is_bit_equal(model, saved):
    back = Model.load(saved, adata=make_adata(), accelerator="cpu")
    assert_same_model(model, back)
    assert not back.module.training
    assert back.stage_history_ == model.stage_history_
    assert type(back.shift_) is np.float32
    assert back.shift_ == model.shift_
    pd.testing.assert_frame_equal(back.table, model.table)
    np.testing.assert_array_equal(
        model.get_latent_representation(give_mean=True), back.get_latent_representation(give_mean=True)
    )


def test_registry_comes_back(model, saved):
    expected, back = flat(model.registry), flat(Model.load_registry(str(saved)))
    assert list(back) == list(expected)
    assert back == expected
    assert type(Model.load_registry(saved)["field_registries"]) is type(model.registry["field_registries"])


def test_without_data_then_with_new_data(model, saved):
    back = Model.load(saved, adata=False, accelerator="cpu")
    assert back.adata is None
    assert_same_model(model, back)
    new = make_adata(17, seed=1)
    assert back.get_latent_representation(new).shape == (17, 3)
    np.testing.assert_array_equal(back.get_latent_representation(new), model.get_latent_representation(new))
    with pytest.raises(ValueError, match="not found in source registry"):
        unknown = make_adata(5)
        unknown.obs["donor"] = pd.Categorical(["stranger"] * 5)
        back.get_latent_representation(unknown)


def test_without_data_can_be_saved_again(model, saved, tmp_path):
    Model.load(saved, adata=False, accelerator="cpu").save(tmp_path / "again")
    assert_same_model(model, Model.load(tmp_path / "again", adata=make_adata(), accelerator="cpu"))


def test_saved_data_are_picked_up(model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True, compression="gzip")
    back = Model.load(tmp_path / "model", accelerator="cpu")
    assert back.adata.obs_names.tolist() == model.adata.obs_names.tolist()
    np.testing.assert_array_equal(back.adata.X, model.adata.X)
    with h5py.File(tmp_path / "model" / "adata.h5ad") as file:
        assert file["X"].compression == "gzip"
    assert Model.load(tmp_path / "model", adata=False, accelerator="cpu").adata is None


def test_without_saved_data_there_is_a_warning(saved):
    with pytest.warns(CFMVCWarning, match="without data") as record:
        back = Model.load(saved, accelerator="cpu")
    assert back.adata is None
    assert record[0].filename == __file__


def test_overwrite(model, saved):
    with pytest.raises(ModelFileError, match="already exists"):
        model.save(saved)
    model.shift_ = np.float32(7)
    model.save(saved, overwrite=True)
    assert Model.load(saved, adata=False, accelerator="cpu").shift_ == 7
    assert os.listdir(saved.parent) == ["model"]


def test_prefixes_share_a_directory(model, tmp_path):
    model.save(tmp_path / "models", prefix="first_")
    model.shift_ = np.float32(2)
    model.save(tmp_path / "models", prefix="second_")
    with pytest.raises(ModelFileError, match="first_' already exists"):
        model.save(tmp_path / "models", prefix="first_")
    for prefix, value in [("first_", np.float32(0.1)), ("second_", 2)]:
        assert Model.load(tmp_path / "models", adata=False, accelerator="cpu", prefix=prefix).shift_ == value
    assert Model.load_registry(tmp_path / "models", "first_")["model_name"] == "Model"
    with pytest.raises(ModelFileError, match="no saved model"):
        Model.load(tmp_path / "models", adata=False)
    with pytest.raises(ModelFileError, match="not a plain name"):
        model.save(tmp_path / "models", prefix="../escape")


def test_another_class_is_refused_unless_allowed(model, tmp_path):
    make_model(OtherModel).save(tmp_path / "other")
    with pytest.raises(ModelFileError, match="class OtherModel, not Model"):
        Model.load(tmp_path / "other", adata=False, accelerator="cpu")
    with pytest.raises(ModelFileError, match="constructor arguments that Model does not know: .*dispersion"):
        Model.load(tmp_path / "other", adata=False, accelerator="cpu", allowed_classes_names_list=["OtherModel"])
    model.save(tmp_path / "model")
    back = Sibling.load(tmp_path / "model", adata=False, accelerator="cpu", allowed_classes_names_list=["X", "Model"])
    assert type(back) is Sibling
    assert_same_model(model, back)


def test_unknown_attributes_are_refused(saved):
    with pytest.raises(ModelFileError, match=r"2 attributes that OtherModel does not know: shift_, stage_history_"):
        OtherModel.load(saved, adata=False, accelerator="cpu", allowed_classes_names_list=["Model"])


def test_unknown_constructor_arguments_are_refused(model, tmp_path):
    model.init_params_ = {"kwargs": {}, "non_kwargs": {"n_hidden": 4, "novelty": 1}}
    model.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="constructor arguments that Model does not know: novelty"):
        Model.load(tmp_path / "model", adata=False, accelerator="cpu")


def test_weights_of_another_shape_are_refused(model, tmp_path):
    model.init_params_["non_kwargs"]["n_hidden"] = 5
    model.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="do not fit this Model: .* problems, the first is: size mismatch"):
        Model.load(tmp_path / "model", adata=False, accelerator="cpu")


def test_extra_state_without_a_taker_is_refused(tmp_path):
    class Forgetful(Model):
        _load_extra_state = SafePersistenceMixin._load_extra_state

    model = make_full_model()
    model.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="Forgetful has no use for the saved state: table"):
        Forgetful.load(tmp_path / "model", adata=False, allowed_classes_names_list=["Model"])


def test_an_attribute_of_unknown_type_is_named(model, tmp_path):
    model.shift_ = {1, 2}
    with pytest.raises(ModelFileError, match=r"attributes\['shift_'\].*set"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_failing_property_does_not_break_saving(tmp_path):
    class Lazy(Model):
        @property
        def result_(self):
            raise RuntimeError("expensive")

    make_model(Lazy).save(tmp_path / "model")
    assert Lazy.load(tmp_path / "model", adata=False, accelerator="cpu").is_trained


@pytest.mark.parametrize(
    "arguments", [{"save_kwargs": {"pickle_protocol": 2}}, {"legacy_mudata_format": True}, {"datamodule": "x"}]
)
def test_unsupported_arguments_of_save(model, tmp_path, arguments):
    with pytest.raises(UnsupportedError, match=next(iter(arguments))):
        model.save(tmp_path / "model", **arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [{"backup_url": "https://example.org/model.pt"}, {"datamodule": "x"}])
def test_unsupported_arguments_of_load(saved, arguments):
    with pytest.raises(UnsupportedError, match=next(iter(arguments))):
        Model.load(saved, adata=False, **arguments)


def test_other_unsupported_requests(saved, tmp_path):
    without_data = Model.load(saved, adata=False, accelerator="cpu")
    with pytest.raises(UnsupportedError, match="save_anndata"):
        without_data.save(tmp_path / "x", save_anndata=True)
    without_data.registry_["setup_method_name"] = "setup_datamodule"
    with pytest.raises(UnsupportedError, match="setup_datamodule"):
        without_data.save(tmp_path / "x")
    with pytest.raises(UnsupportedError, match="0.15"):
        Model.convert_legacy_save(saved, tmp_path / "x")
    with pytest.raises(ValueError, match="single device"):
        Model.load(saved, adata=False, accelerator="cpu", device=-1)


def test_a_setup_method_from_the_file_is_never_called(saved, monkeypatch):
    """Which class method runs is not the file's choice."""
    registry = Model.load_registry(saved)
    registry["setup_method_name"] = "convert_legacy_save"
    model = Model.load(saved, adata=False, accelerator="cpu")
    model.registry_ = registry
    monkeypatch.setattr("cfmvc_scvi.model.persistence.mixin._check_setup_method", lambda registry: None)
    model.save(saved, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(UnsupportedError, match="convert_legacy_save"):
        Model.load(saved, adata=make_adata(), accelerator="cpu")


def test_signatures_are_those_of_scvi_tools():
    for name in ("save", "load"):
        theirs = list(inspect.signature(getattr(BaseModelClass, name)).parameters.values())
        ours = list(inspect.signature(getattr(SafePersistenceMixin, name)).parameters.values())
        shared = [parameter for parameter in ours if parameter.name != "trust_pickle"]
        assert [(p.name, p.default) for p in shared] == [(p.name, p.default) for p in theirs]


def test_files_of_plain_scvi_tools_need_trust(model, tmp_path):
    BaseModelClass.save(model, str(tmp_path / "plain"), save_anndata=True)
    assert sorted(os.listdir(tmp_path / "plain")) == ["adata.h5ad", "model.pt"]
    for call in (Model.load, Model.load_registry):
        with pytest.raises(UnsafeFileError, match="trust_pickle=True"):
            call(tmp_path / "plain")
    back = Model.load(tmp_path / "plain", accelerator="cpu", trust_pickle=True)
    assert back.adata.n_obs == model.adata.n_obs
    assert_same_model(model, back)


def test_nothing_is_unpickled(model, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a pickle was read or written")

    monkeypatch.setattr(torch, "load", fail)
    monkeypatch.setattr(torch, "save", fail)
    monkeypatch.setattr("pickle.loads", fail)
    monkeypatch.setattr("pickle.load", fail)
    model.save(tmp_path / "model", save_anndata=True)
    Model.load(tmp_path / "model", accelerator="cpu")
    Model.load_registry(tmp_path / "model")
    Model.view_setup_args(tmp_path / "model")
    Model.prepare_query_anndata(make_adata(), tmp_path / "model")
    Model.load_query_data(make_adata(), tmp_path / "model", accelerator="cpu")


def test_query_mapping_takes_a_directory_or_a_model(model, saved):
    query = make_adata(10, seed=2)
    query.obs["donor"] = pd.Categorical(["new donor"] * 10)
    assert Model.prepare_query_anndata(query, str(saved), return_reference_var_names=True).tolist() == GENES
    reordered = query[:, GENES[::-1]].copy()
    prepared = Model.prepare_query_anndata(reordered, saved, inplace=False)
    assert prepared.var_names.tolist() == GENES
    weights = []
    for reference in (saved, model):
        torch.manual_seed(0)
        mapped = Model.load_query_data(prepared.copy(), reference, accelerator="cpu", unfrozen=True)
        assert mapped.summary_stats.n_batch == 4
        assert not mapped.is_trained
        pd.testing.assert_frame_equal(mapped.table, model.table)
        weights.append(mapped.module.state_dict())
    shared = model.module.state_dict()["z_encoder.mean_encoder.weight"]
    assert all(torch.equal(state["z_encoder.mean_encoder.weight"], shared) for state in weights)


def test_restore_weights(model, saved):
    expected = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(1)
    model.shift_ = np.float32(9)
    model.restore_weights(saved)
    assert all(torch.equal(expected[name], tensor) for name, tensor in model.module.state_dict().items())
    assert model.shift_ == 9


def test_the_header_is_readable(saved):
    header = json.loads((saved / "model.json").read_text())
    assert (header["format_version"], header["class_name"]) == (1, "Model")
    assert header["attributes"]["is_trained_"] is True
