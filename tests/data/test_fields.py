from __future__ import annotations

import json
import pickle
from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.dataloaders import AnnDataLoader
from scvi.model import SCVI

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS, DESIGN_OBSM_KEY
from cfmvc_scvi.data import (
    CategoryField,
    MuDataCategoryField,
    MuDataPerturbationField,
    PerturbationField,
    Vocabulary,
    condition_table,
)
from cfmvc_scvi.errors import DataError, UnknownConditionError

KEY = CFMVC_REGISTRY_KEYS.PERTURBATION_KEY


def manager_of(data: ad.AnnData, *fields: object, source: dict | None = None, **options: object) -> AnnDataManager:
    manager = AnnDataManager(fields=[LayerField(REGISTRY_KEYS.X_KEY, None, is_count_data=False), *fields])
    manager.register_fields(data, source_registry=source, **options)
    return manager


def state_of(manager: AnnDataManager, key: str = KEY) -> dict:
    return manager.registry["field_registries"][key]["state_registry"]


def test_register_writes_the_design_and_leaves_the_columns(adata: ad.AnnData) -> None:
    before = adata.obs.copy()
    manager = manager_of(adata, PerturbationField(KEY, "perturbation", dose_key="dose"))
    design = manager.get_from_registry(KEY)
    assert design.dtype == np.float32
    dose = before["dose"].to_numpy()
    np.testing.assert_allclose(design[1::4, 0], dose[1::4])
    np.testing.assert_allclose(design[3::4], np.repeat(dose[3::4, None], 2, axis=1))
    assert not design[0::4].any()
    assert manager.summary_stats["n_perturbations"] == 2
    pd.testing.assert_frame_equal(adata.obs, before)


def test_minibatches_hold_the_design(adata: ad.AnnData) -> None:
    manager = manager_of(adata, PerturbationField(KEY, "perturbation"))
    batches = list(AnnDataLoader(manager, batch_size=7))
    np.testing.assert_array_equal(
        np.concatenate([batch[KEY].numpy() for batch in batches]), adata.obsm[DESIGN_OBSM_KEY]
    )


def test_registry_holds_plain_values(adata: ad.AnnData) -> None:
    state = state_of(manager_of(adata, PerturbationField(KEY, "perturbation", dose_key="dose")))
    assert json.loads(json.dumps(state)) == state
    assert pickle.loads(pickle.dumps(state)) == state
    assert (state["original_key"], state["dose_key"]) == ("perturbation", "dose")
    assert Vocabulary.from_dict(state["vocabulary"]) == Vocabulary(("A", "B"), "control")


def test_empty_field_registers_nothing(adata: ad.AnnData) -> None:
    manager = manager_of(adata, PerturbationField(KEY, None))
    assert KEY not in manager.data_registry
    assert DESIGN_OBSM_KEY not in adata.obsm
    assert manager.summary_stats["n_perturbations"] == 0
    assert manager.fields[1].view_state_registry({}) is None


def test_transfer_knows_new_combinations_and_missing_control(adata: ad.AnnData) -> None:
    manager = manager_of(adata[adata.obs["perturbation"] != "A+B"].copy(), PerturbationField(KEY, "perturbation"))
    query = adata[3::4].copy()
    moved = manager.transfer_fields(query)
    np.testing.assert_array_equal(moved.get_from_registry(KEY), np.ones((6, 2)))
    assert state_of(moved) == state_of(manager)


def test_saved_registry_sets_up_new_data(adata: ad.AnnData) -> None:
    field = PerturbationField(KEY, "perturbation", dose_key="dose")
    manager = manager_of(adata, field)
    registry = pickle.loads(pickle.dumps(manager.registry))
    registry["field_registries"][KEY] = json.loads(json.dumps(registry["field_registries"][KEY]))
    query = adata[[9, 2]].copy()
    again = PerturbationField(KEY, "perturbation", dose_key="dose")
    moved = manager_of(query, again, source=registry, extend_categories=True, allow_missing_labels=True)
    np.testing.assert_array_equal(moved.get_from_registry(KEY), adata.obsm[DESIGN_OBSM_KEY][[9, 2]])


def test_the_vocabulary_of_the_source_rules(adata: ad.AnnData) -> None:
    manager = manager_of(adata, PerturbationField(KEY, "perturbation", control="A"))
    query = adata[adata.obs["perturbation"].isin(["A", "B"])].copy()
    moved = manager_of(query, PerturbationField(KEY, "perturbation"), source=manager.registry)
    assert Vocabulary.from_dict(state_of(moved)["vocabulary"]).control == "A"
    np.testing.assert_array_equal(moved.get_from_registry(KEY)[:, 0], query.obs["perturbation"] == "B")


class Model(SCVI):
    """scVI with a perturbation: what a model of this package does with the fields."""

    @classmethod
    def setup_anndata(cls, adata: ad.AnnData, perturbation_key: str, size_factor_key: None = None, **kwargs: object):
        setup_method_args = cls._get_setup_method_args(**locals())
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, None, is_count_data=False),
            CategoryField(REGISTRY_KEYS.BATCH_KEY, "donor"),
            CategoryField(REGISTRY_KEYS.LABELS_KEY, None),
            PerturbationField(KEY, perturbation_key),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)


def test_model_saved_and_loaded_encodes_new_data(adata: ad.AnnData, tmp_path: Path) -> None:
    new = adata[[3, 1]].copy()
    Model.setup_anndata(adata, perturbation_key="perturbation")
    model = Model(adata, n_hidden=4, n_latent=2)
    model.save(tmp_path / "model", save_anndata=True)
    for source in (None, adata):
        loaded = Model.load(tmp_path / "model", adata=source, accelerator="cpu")
        state = loaded.get_state_registry(KEY)
        assert Vocabulary.from_dict(state["vocabulary"]) == Vocabulary(("A", "B"), "control")
        validated = loaded._validate_anndata(new.copy())
        np.testing.assert_array_equal(validated.obsm[DESIGN_OBSM_KEY], [[1, 1], [1, 0]])
        query = new.copy()
        query.obs["perturbation"] = "Z"
        with pytest.raises(UnknownConditionError, match="unknown perturbation 'Z'"):
            loaded._validate_anndata(query)


def test_survives_writing_and_reading(adata: ad.AnnData, tmp_path: Path) -> None:
    manager = manager_of(adata, PerturbationField(KEY, "perturbation"))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(manager.transfer_fields(read).get_from_registry(KEY), manager.get_from_registry(KEY))


def test_registering_again_after_another_manager(adata: ad.AnnData) -> None:
    first = manager_of(adata, PerturbationField(KEY, "perturbation"))
    manager_of(adata, PerturbationField(KEY, "perturbation", dose_key="dose"))
    first.validate()
    np.testing.assert_array_equal(np.unique(first.get_from_registry(KEY)), [0, 1])


@pytest.mark.parametrize("mod_key", [None, "rna"])
def test_mudata(adata: ad.AnnData, mod_key: str | None) -> None:
    other = adata[:, :2].copy()
    other.var_names = ["protein0", "protein1"]
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"rna": adata, "other": other})
    data.obs["perturbation"] = adata.obs["perturbation"].astype(str)
    fields = [
        MuDataPerturbationField(KEY, "perturbation", mod_key=mod_key),
        MuDataCategoryField("labels", "perturbation", mod_key=mod_key),
    ]
    manager = AnnDataManager(fields=fields)
    manager.register_fields(data)
    expected = Vocabulary(("A", "B"), "control").design(adata.obs["perturbation"])
    np.testing.assert_array_equal(manager.get_from_registry(KEY), expected)
    assert manager.get_from_registry("labels").max() == 3


def test_view_of_the_registry_lists_control_and_columns(adata: ad.AnnData) -> None:
    manager = manager_of(adata, PerturbationField(KEY, "perturbation"))
    table = manager.fields[1].view_state_registry(state_of(manager))
    assert list(table.columns[1].cells) == ["control", "A", "B"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda obs: obs.drop(columns="perturbation"), "'perturbation' is not in adata.obs"),
        (lambda obs: obs.assign(perturbation="control"), "no effect to learn"),
        (
            lambda obs: obs.assign(perturbation=obs["perturbation"].astype(object).replace("control", "ctrl")),
            "control label",
        ),
        (lambda obs: obs.rename(columns={"dose": "doses"}), "Did you mean 'doses'"),
        (lambda obs: obs.assign(dose=-1.0), "18 cells without a valid dose in 'dose': cell1"),
    ],
)
def test_setup_refuses(adata: ad.AnnData, change: object, words: str) -> None:
    adata.obs = change(adata.obs)
    with pytest.raises((DataError, UnknownConditionError), match=words):
        manager_of(adata, PerturbationField(KEY, "perturbation", dose_key="dose"))


@pytest.mark.parametrize("column", ["cell_type", None])
def test_category_field_registers_what_scvi_does(adata: ad.AnnData, column: str | None) -> None:
    other = adata.copy()
    ours, theirs = (
        manager_of(adata, CategoryField("labels", column)),
        manager_of(other, CategoricalObsField("labels", column)),
    )
    np.testing.assert_array_equal(ours.get_from_registry("labels"), theirs.get_from_registry("labels"))
    np.testing.assert_array_equal(
        state_of(ours, "labels")["categorical_mapping"], state_of(theirs, "labels")["categorical_mapping"]
    )
    assert state_of(ours, "labels")["original_key"] == state_of(theirs, "labels")["original_key"]
    assert ours.summary_stats["n_labels"] == theirs.summary_stats["n_labels"]


def test_category_field_extends_only_when_asked(adata: ad.AnnData) -> None:
    manager = manager_of(adata, CategoryField("sample", "donor"))
    query = adata[:4].copy()
    query.obs["donor"] = ["donor3", "donor2", "donor1", "donor3"]
    with pytest.raises(UnknownConditionError, match="unknown to the model: 'donor3'.*Did you mean"):
        manager.transfer_fields(query.copy())
    moved = manager.transfer_fields(query, extend_categories=True)
    np.testing.assert_array_equal(moved.get_from_registry("sample").ravel(), [2, 1, 0, 2])
    assert list(state_of(manager, "sample")["categorical_mapping"]) == ["donor1", "donor2"]


@pytest.mark.parametrize("dtype", [object, "string", "category", int, "Int64", bool])
@pytest.mark.parametrize("other", ["same", "category"])
def test_category_field_takes_any_dtype(adata: ad.AnnData, dtype: object, other: str) -> None:
    values = pd.Series(np.arange(24) % 2, index=adata.obs_names)
    if dtype in (object, "string"):
        values = values.map({0: "b", 1: "a"})
    column = values.astype(dtype)
    adata.obs["column"] = column
    manager = manager_of(adata, CategoryField("labels", "column"))
    query = adata[1:4].copy()
    query.obs["column"] = column.iloc[1:4].astype(dtype if other == "same" else "category")
    moved = manager.transfer_fields(query)
    np.testing.assert_array_equal(moved.get_from_registry("labels"), manager.get_from_registry("labels")[1:4])
    assert len(np.unique(manager.get_from_registry("labels"))) == 2
    pd.testing.assert_series_equal(adata.obs["column"], column, check_names=False)


def test_the_design_of_many_perturbations_is_sparse_and_the_same(adata: ad.AnnData, monkeypatch) -> None:
    dense = manager_of(adata.copy(), PerturbationField(KEY, "perturbation", dose_key="dose")).get_from_registry(KEY)
    monkeypatch.setattr("cfmvc_scvi.data.fields._MOST_COLUMNS", 0)
    manager = manager_of(adata, PerturbationField(KEY, "perturbation", dose_key="dose"))
    design = manager.get_from_registry(KEY)
    assert design.format == "csr" and design.nnz < dense.size
    np.testing.assert_array_equal(design.toarray(), dense)
    batches = list(AnnDataLoader(manager, batch_size=7))
    np.testing.assert_array_equal(np.concatenate([batch[KEY].numpy() for batch in batches]), dense)
    for known, found in zip(condition_table(dense), condition_table(design), strict=True):
        np.testing.assert_array_equal(known, found)
