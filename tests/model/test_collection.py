"""Training from a collection on disk gives what training from the same cells in memory gives.

The tests run with a reader that reads what it is asked for, and with annbatch itself (`pytest -m annbatch`).
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType, SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from lightning.pytorch import Callback
from scipy import sparse
from scvi.dataloaders import AnnDataLoader

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.errors import DataError, MissingExtraError, UnknownConditionError, UnsupportedError

KEYS = {
    "batch_key": "batch",
    "labels_key": "cell_type",
    "sample_key": "sample",
    "perturbation_key": "perturbation",
    "dose_key": "dose",
    "categorical_covariate_keys": ["phase"],
    "continuous_covariate_keys": ["mito"],
}
SMALL = {"n_intrinsic": 4, "n_technical": 2, "n_hidden": 16, "flow_kwargs": {"n_hidden": 16}}
EPOCHS = {"representation": 3, "flow": 1, "joint": 1}


class Loader:
    """What is used of annbatch.Loader."""

    def __init__(self, *, batch_sampler, return_index, preload_to_gpu):
        assert return_index and not preload_to_gpu
        self.sampler = batch_sampler

    def add_datasets(self, datasets):
        self.counts = sparse.vstack([sparse.csr_matrix(part[:]) for part in datasets], format="csr")
        return self

    def __iter__(self):
        n_cells = self.counts.shape[0]
        for request in self.sampler.sample(n_cells):
            parts = request["requests"]
            sizes = {part.stop - part.start for part in parts[:-1]}
            assert len(sizes) <= 1 and all(0 <= part.start < part.stop <= n_cells for part in parts)
            rows = np.concatenate([np.arange(part.start, part.stop) for part in parts])
            for split in request["splits"]:
                yield {"X": self.counts[rows[split]], "obs": None, "index": rows[split]}


class Sampler:
    """What is used of annbatch.abc.Sampler."""

    def sample(self, n_cells):
        self.validate(n_cells)
        yield from self._sample(n_cells)


def stand_in() -> dict[str, ModuleType]:
    """Modules with the interface of annbatch."""

    def datasets(group):
        return (group[name] for name in sorted(group.keys()))

    names = {"annbatch": {"Loader": Loader, "DatasetCollection": datasets}, "annbatch.abc": {"Sampler": Sampler}}
    modules = {name: ModuleType(name) for name in names}
    for name, members in names.items():
        vars(modules[name]).update(members)
    return modules


@pytest.fixture(params=["stand-in", pytest.param("annbatch", marks=pytest.mark.annbatch)])
def reader(request, monkeypatch):
    """annbatch, or what stands in for it."""
    if request.param == "stand-in":
        for name, module in stand_in().items():
            monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(scope="module")
def cells():
    """600 cells x 60 genes, in the order in which they stand on disk."""
    adata = simulated_perturbation(
        600, 60, n_cell_types=2, n_samples=1, perturbations=("A", "B", "D"), combinations=("A+B",), doses=(0.5, 2.0)
    )
    rng = np.random.default_rng(0)
    adata.obs["phase"] = pd.Categorical(rng.choice(["G1", "S"], adata.n_obs))
    adata.obs["mito"] = rng.random(adata.n_obs)
    adata.obs["place"] = rng.choice(["left", "right"], adata.n_obs)
    adata.obsm["spatial"] = rng.random((adata.n_obs, 2))
    adata.varm["described"] = rng.random((adata.n_vars, 2))
    return adata[rng.permutation(adata.n_obs)].copy()


def write(path, *parts):
    root = zarr.open_group(str(path), mode="w")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "zarr v3 autosharding")  # will be the default of anndata
        for number, part in enumerate(parts):
            ad.io.write_elem(root, f"dataset_{number}", part)
    root.attrs.update({"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"})
    return path


@pytest.fixture(scope="module")
def path(cells, tmp_path_factory):
    """A collection of these cells: data sets of 257, 300 and 43, with column numbers of one byte."""
    parts = [cells[:257].copy(), cells[257:557].copy(), cells[557:].copy()]
    return write(tmp_path_factory.mktemp("collection") / "cells.zarr", *parts)


@pytest.fixture
def data(reader, path):
    return CFMVC.setup_annbatch(path, **KEYS, chunk_size=16, preload_nchunks=8)


def in_memory(cells, **setup):
    adata = cells.copy()
    CFMVC.setup_anndata(adata, **(KEYS | setup))
    return CFMVC(adata, **SMALL)


def train(model, quick, **options):
    defaults = {"max_epochs": EPOCHS, "batch_size": 64} if "resume_from" not in options else {}
    model.train(**(quick | defaults | options))
    return model


def means(answer):
    return np.log1p(np.asarray(answer.X.mean(axis=0)).ravel())


@pytest.fixture
def model(data, quick, seeded):
    return train(CFMVC(registry=data.registry, **SMALL), quick, datamodule=data)


def test_the_registry_is_that_of_the_cells_in_memory(data, cells):
    memory = in_memory(cells)
    for key, field in memory.registry["field_registries"].items():
        assert str(data.registry["field_registries"][key]) == str(field)
    assert data.registry["setup_args"] == memory.registry["setup_args"]
    model = CFMVC(registry=data.registry)
    assert list(model.get_var_names()) == list(cells.var_names)
    assert model.summary_stats == memory.summary_stats


def test_minibatches_have_what_those_in_memory_have(data, cells):
    loader = AnnDataLoader(in_memory(cells).adata_manager, batch_size=100, shuffle=False)
    own = data.inference_dataloader(batch_size=100)
    assert len(own) == len(loader)
    for mine, theirs in zip(own, loader, strict=True):
        assert mine.keys() == theirs.keys()
        for key, values in theirs.items():
            assert mine[key].dtype == values.dtype
            assert torch.equal(mine[key], values), key


def test_an_epoch_has_each_training_cell_once_in_a_new_order(data, cells):
    rng = np.random.default_rng(0)
    parts = np.split(rng.permutation(cells.n_obs), [400, 500])
    data.split(None, None, True, 50, {"external_indexing": parts})
    epochs = [[batch["X"] for batch in data.train_dataloader()] for _ in range(2)]
    wanted = cells.X[np.sort(parts[0])].toarray()
    for batches in epochs:
        assert len(batches) == len(data.train_dataloader()) == 8
        assert all(25 <= len(batch) <= 100 for batch in batches)
        seen = np.concatenate(batches)
        np.testing.assert_array_equal(np.unique(seen, axis=0), np.unique(wanted, axis=0))
        assert seen.shape == wanted.shape
    assert not torch.equal(epochs[0][0][:10], epochs[1][0][:10])
    validation = np.concatenate([batch["X"] for batch in data.val_dataloader()])
    np.testing.assert_array_equal(validation, cells.X[np.sort(parts[1])].toarray())


def test_what_is_remembered_is_that_of_the_cells_in_memory(model, cells, quick):
    memory = train(in_memory(cells), quick)
    for name in ("train_indices", "validation_indices", "test_indices"):
        np.testing.assert_array_equal(getattr(model, name), getattr(memory, name))
    own, other = model._reference, memory._reference
    for field in ("log_mean", "log_noise", "rate", "rate_noise", "depth_quantiles", "n_cells"):
        np.testing.assert_array_equal(getattr(own.bulk, field), getattr(other.bulk, field))
    np.testing.assert_array_equal(own.designs, other.designs)
    assert own.contexts.names == other.contexts.names
    assert (own.panel.counts != other.panel.counts).nnz == 0
    assert list(own.panel.names) == list(other.panel.names)
    for key, values in other.panel.tensors.items():
        np.testing.assert_array_equal(own.panel.tensors[key], values)


def test_the_same_representation_gives_the_same_flow_and_predictions(model, data, cells, quick, tmp_path):
    model.save(tmp_path / "model")
    memory = CFMVC.load(tmp_path / "model", adata=cells.copy(), accelerator="cpu")
    own = model.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_array_equal(own, memory.get_latent_representation(batch_size=2048))
    question = {"perturbation": "A", "dose": 2.0, "seed": 0, "indices": range(50)}
    for each in (model, memory):
        torch.manual_seed(0)
        train(each, quick, stage="flow")
        each.answer = each.predict_counterfactual(cells.copy(), **question)
    np.testing.assert_array_equal(model.answer.X.toarray(), memory.answer.X.toarray())
    loaded = CFMVC.load(tmp_path / "model", adata=False, accelerator="cpu")
    assert loaded.predict_counterfactual(cells.copy(), **question).shape == (50, 60)


@pytest.mark.slow
def test_predictions_differ_as_those_of_another_seed(data, cells, quick, seeded):
    longer = {"max_epochs": {"representation": 40, "flow": 4}}
    control = cells[cells.obs["perturbation"] == "control"].copy()
    answers = []
    for seed, make in ((0, None), (1, None), (0, data)):
        torch.manual_seed(seed)
        each = in_memory(cells) if make is None else CFMVC(registry=make.registry, **SMALL)
        train(each, quick, **longer, datamodule=make)
        answers.append(means(each.predict_counterfactual(control.copy(), perturbation="A", dose=2.0, seed=0)))
    memory, other_seed, collection = answers
    effect = np.sqrt(np.mean((memory - means(control)) ** 2))
    apart = [np.sqrt(np.mean((memory - answer) ** 2)) for answer in (other_seed, collection)]
    assert apart[1] < max(2 * apart[0], 0.1 * effect)


def test_all_stages_and_further_training_run(model, data, cells, quick, tmp_path):
    train(model, quick, stage="joint")
    model.predict_counterfactual(cells[:60].copy(), perturbation="B", dose=0.5)  # scvi-tools adopts these cells
    train(model, quick, stage=["representation", "flow"])
    assert len(model.train_indices) == 540
    model.save(tmp_path / "model")
    loaded = CFMVC.load(tmp_path / "model", adata=False, accelerator="cpu")
    train(loaded, quick, datamodule=data, early_stopping=True)
    assert list(loaded.train_indices) == list(model.train_indices)
    assert "validation_loss" in loaded.history


class Stopped(BaseException):
    """Stands for a signal that nothing catches."""


class Stop(Callback):
    """Ends the training in the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise Stopped


def test_a_training_that_was_interrupted_goes_on_as_if_it_had_not_been(data, quick, seeded, tmp_path):
    models = []
    for directory in (None, tmp_path / "checkpoint"):
        torch.manual_seed(3)
        models.append(CFMVC(registry=data.registry, **SMALL))
        torch.manual_seed(105)
        stop = [Stop()] if directory else []
        try:
            train(models[-1], quick, datamodule=data, checkpoint_dir=directory, callbacks=stop)
        except Stopped:
            models[-1].train(datamodule=data, resume_from=directory, accelerator="cpu", enable_progress_bar=False)
    for name, tensor in models[0].module.state_dict().items():
        assert torch.equal(tensor, models[1].module.state_dict()[name]), name


@pytest.mark.usefixtures("reader", "seeded")
@pytest.mark.parametrize("where", ["uns", "varm"])
def test_features_make_unseen_perturbations_predictable(where, path, cells, quick):
    features = pd.DataFrame(np.eye(4), index=["A", "B", "C", "D"])
    named = cells.copy()
    named.var_names = ["A", "B", "C", "D", *named.var_names[4:]]
    key = {"uns": {"features": features}} if where == "uns" else {}
    source = path if where == "uns" else write(path.parent / "described.zarr", named)
    embeddings = "features" if where == "uns" else "described"
    data = CFMVC.setup_annbatch(source, **KEYS, perturbation_embeddings_key=embeddings, **key)
    model = train(CFMVC(registry=data.registry, **SMALL), quick, datamodule=data)
    query = (cells if where == "uns" else named)[:20].copy()
    assert model.predict_counterfactual(query, perturbation="C", dose=1.0).shape == (20, 60)


@pytest.mark.usefixtures("reader", "seeded")
def test_cells_have_their_place(path, cells, quick):
    setup = KEYS | {"spatial_key": "spatial", "sample_key": None}
    data = CFMVC.setup_annbatch(path, **setup)
    model = train(CFMVC(registry=data.registry, **SMALL), quick, datamodule=data, stage="representation")
    memory = train(in_memory(cells, **setup), quick, stage="representation")
    assert model._reference.panel.niche.shape == memory._reference.panel.niche.shape
    answer = train(model, quick, stage="flow").predict_counterfactual(cells.copy(), perturbation="A", dose=0.5)
    assert answer.shape == cells.shape


def test_what_cannot_be_trained_on_is_refused_with_a_reason(data, cells, quick, path):
    model = CFMVC(registry=data.registry, **SMALL)
    with pytest.raises(UnsupportedError, match="only what setup_annbatch returns"):
        model.train(datamodule=SimpleNamespace())
    with pytest.raises(UnsupportedError, match="one process"):
        model.train(datamodule=data, strategy="ddp_find_unused_parameters_true")
    with pytest.raises(DataError, match="pass datamodule="):
        model.train()
    with pytest.raises(UnsupportedError, match="num_workers"):
        train(model, quick, datamodule=data, datasplitter_kwargs={"num_workers": 2})
    with pytest.raises(DataError, match="Early stopping needs validation cells"):
        train(model, quick, datamodule=data, train_size=1.0, early_stopping=True)
    with pytest.raises(DataError, match="increasing"):
        data.inference_dataloader([3, 1])
    other = CFMVC.setup_annbatch(path, **(KEYS | {"labels_key": "place"}))
    with pytest.raises(DataError, match="made for other labels"):
        model.train(datamodule=other)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        CFMVC.setup_annbatch(path, **KEYS, chunk_size=0)
    assert not model.is_trained_


def test_a_reader_that_returns_other_cells_is_refused(path, quick, monkeypatch):
    class Other(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch | {"index": batch["index"][::-1]}

    for name, module in stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["annbatch"], "Loader", Other)
    data = CFMVC.setup_annbatch(path, **KEYS)
    with pytest.raises(UnsupportedError, match="other cells than it was asked for"):
        train(CFMVC(registry=data.registry, **SMALL), quick, datamodule=data)


@pytest.mark.usefixtures("reader")
def test_what_is_no_collection_of_counts_is_refused_with_a_reason(cells, path, tmp_path):
    with pytest.raises(DataError, match="There is no collection"):
        CFMVC.setup_annbatch(tmp_path / "nothing.zarr", **KEYS)
    with pytest.raises(DataError, match="no data sets"):
        CFMVC.setup_annbatch(write(tmp_path / "empty.zarr"), **KEYS)
    with pytest.raises(UnknownConditionError, match="'clone'"):
        CFMVC.setup_annbatch(path, **(KEYS | {"labels_key": "clone"}))
    with pytest.raises(UnknownConditionError, match="'raw'"):
        CFMVC.setup_annbatch(path, layer="raw", **KEYS)
    with pytest.raises(UnknownConditionError, match="'image'"):
        CFMVC.setup_annbatch(path, **KEYS, spatial_key="image")
    with pytest.raises(DataError, match="Data set 1 of the collection has other genes"):
        CFMVC.setup_annbatch(write(tmp_path / "mixed.zarr", cells[:300].copy(), cells[300:, ::-1].copy()), **KEYS)
    by_gene, logged = cells.copy(), cells.copy()
    by_gene.X = sparse.csc_matrix(by_gene.X)
    with pytest.raises(DataError, match="dense or CSR"):
        CFMVC.setup_annbatch(write(tmp_path / "csc.zarr", by_gene), **KEYS)
    logged.X = logged.X.log1p()
    with pytest.raises(DataError, match="log-normalised"):
        CFMVC.setup_annbatch(write(tmp_path / "logged.zarr", logged), **KEYS)


@pytest.mark.usefixtures("reader", "seeded")
def test_dense_counts_of_a_layer_are_read(cells, quick, tmp_path):
    dense = cells.copy()
    dense.layers["counts"], dense.X = dense.X.toarray(), dense.X.log1p()
    source = write(tmp_path / "dense.zarr", dense[:300].copy(), dense[300:].copy())
    data = CFMVC.setup_annbatch(source, layer="counts", **KEYS)
    model = train(CFMVC(registry=data.registry, **SMALL), quick, datamodule=data)
    assert (model._reference.panel.counts != cells.X[np.sort(model._reference.panel.cell)]).nnz == 0


@pytest.mark.skipif(sys.modules.get("annbatch") is not None, reason="annbatch is there")
def test_a_missing_annbatch_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "annbatch", None)
    wanted = r'pip install "cfmvc-scvi\[annbatch\]"' + ("" if sys.version_info >= (3, 12) else ", by Python 3.12")
    with pytest.raises(MissingExtraError, match=wanted):
        CFMVC.setup_annbatch(path, **KEYS)


@pytest.mark.annbatch
@pytest.mark.usefixtures("seeded")
@pytest.mark.filterwarnings("ignore:Consolidated metadata")  # annbatch writes it
def test_a_collection_that_annbatch_writes_is_trained_on(cells, quick, tmp_path):
    from annbatch import DatasetCollection

    files = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    plain = ad.AnnData(cells.X, obs=cells.obs, var=cells.var)
    plain[:200].copy().write_h5ad(files[0])
    plain[200:].copy().write_h5ad(files[1])
    collection = DatasetCollection(tmp_path / "cells.zarr")
    collection.add_adatas(files, dataset_size=200, shuffle_chunk_size=50, rng=np.random.default_rng(0))
    data = CFMVC.setup_annbatch(collection, **KEYS)
    assert len(data.collection.counts.parts) == 3
    shuffled = cells[data.collection.annotations.obs_names].copy()
    assert (data.collection.counts[:] != shuffled.X).nnz == 0
    model = train(CFMVC(registry=data.registry, **SMALL), quick, datamodule=data)
    memory = train(in_memory(shuffled), quick)
    assert (model._reference.panel.counts != memory._reference.panel.counts).nnz == 0
    np.testing.assert_array_equal(model._reference.bulk.log_mean, memory._reference.bulk.log_mean)
