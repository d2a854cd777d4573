"""Training from cells on disk: `setup_annbatch`, and the cells that a model trains on, wherever they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, fields

from cfmvc_scvi._compat import (
    FIELD_REGISTRIES_KEY,
    MODEL_NAME_KEY,
    SETUP_ARGS_KEY,
    SETUP_METHOD_KEY,
    use_distributed_sampler,
)
from cfmvc_scvi.data import check_counts, check_names, check_obsm, open_collection, require_annbatch
from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.model._base import ModelPart
from cfmvc_scvi.model.setup import cell_fields, check_design
from cfmvc_scvi.train import CollectionDataModule

__all__ = ["CollectionMixin"]


class _StoredCountsField(fields.LayerField):
    """Counts that stay on disk; the annotations that are registered have none."""

    def __init__(self, registry_key: str, layer: str | None) -> None:
        super().__init__(registry_key, layer, is_count_data=False)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Return what scvi's field of the same counts in memory would."""
        return {
            self.N_OBS_KEY: adata.n_obs,
            self.N_VARS_KEY: adata.n_vars,
            self.COLUMN_NAMES_KEY: np.asarray(adata.var_names),
        }


class CollectionMixin(ModelPart):
    """Cells of a `CFMVC` that are trained on: those of its AnnData, or of a collection on disk."""

    _collection: CollectionDataModule | None = None

    @classmethod
    def setup_annbatch(
        cls,
        collection_path: Any,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        perturbation_key: str | None = None,
        control_category: str = "control",
        dose_key: str | None = None,
        spatial_key: str | None = None,
        sample_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        allow_non_integer: bool = False,
        perturbation_embeddings_key: str | None = None,
        *,
        uns: Mapping[str, Any] | None = None,
        chunk_size: int = 256,
        preload_nchunks: int = 32,
    ) -> CollectionDataModule:
        """Set up cells on disk, in a collection of `annbatch`, for training without loading their counts.

        The columns named here are held in memory, and every count is looked at once. Models know and save the same of
        these cells as of an AnnData with them: a saved one is loaded with an AnnData, or with none.

        Parameters
        ----------
        collection_path
            Path of the collection, or an `annbatch.DatasetCollection`.
        layer
            Layer with the counts; None is X.
        batch_key, labels_key, perturbation_key, control_category, dose_key, spatial_key, sample_key, size_factor_key
            As in `setup_anndata`: columns of `obs` and a key of `obsm` in the collection.
        categorical_covariate_keys, continuous_covariate_keys, allow_non_integer
            As in `setup_anndata`.
        perturbation_embeddings_key
            As in `setup_anndata`: a key of `varm` in the collection, or of `uns` here.
        uns
            Unstructured annotations, which collections do not keep: ``{perturbation_embeddings_key: features}``.
        chunk_size, preload_nchunks
            Cells that are read in one stretch, and stretches from which minibatches are dealt, which are in memory
            together. What stands together in the collection stays together in minibatches unless there are many
            stretches, or the collection was shuffled when it was made.

        Returns
        -------
        What `CFMVC(registry=data.registry)` and `train(datamodule=data)` take. `data.inference_dataloader()` is the
        `dataloader` of other methods.

        Raises
        ------
        MissingExtraError
            If `annbatch` is not installed.
        DataError, UnknownConditionError
            As in `setup_anndata`; if there is no collection.
        """
        arguments = dict(locals())
        setup = {name: arguments[name] for name in _SETUP_ARGUMENTS}
        require_annbatch()
        features = () if perturbation_embeddings_key is None else (perturbation_embeddings_key,)
        spatial = () if spatial_key is None else (spatial_key,)
        columns = [setup[name] for name in _COLUMNS] + [name for key in _COLUMN_LISTS for name in setup[key] or ()]
        named = list(dict.fromkeys(name for name in columns if name is not None))
        collection = open_collection(
            collection_path, layer, columns=named, obsm=spatial, varm=features, uns=dict(uns or {})
        )
        cells, counts = collection.annotations, collection.counts
        check_names(cells)
        check_design((cells, perturbation_key), control_category, [(cells, labels_key), (cells, sample_key)])
        if spatial_key is not None:
            check_obsm(cells, spatial_key)
        names = {"obs_names": cells.obs_names, "var_names": cells.var_names}
        whole = SimpleNamespace(X=counts, layers={}, shape=counts.shape, **names)
        check_counts(cast(AnnData, whole), allow_non_integer=allow_non_integer)
        method = {MODEL_NAME_KEY: cls.__name__, SETUP_METHOD_KEY: "setup_anndata", SETUP_ARGS_KEY: setup}
        stored = _StoredCountsField(REGISTRY_KEYS.X_KEY, layer)
        manager = AnnDataManager(fields=cell_fields(stored, setup), setup_method_args=method)
        manager.register_fields(cells)
        return CollectionDataModule(collection, manager, chunk_size=chunk_size, preload_nchunks=preload_nchunks)

    @property
    def _training_manager(self) -> AnnDataManager:
        """Manager of the cells that the model trains on; their counts are `_training_counts`."""
        return self.adata_manager if self._collection is None else self._collection.manager

    @property
    def _training_cells(self) -> Any:
        """Those cells: AnnData or MuData, without counts if they are in a collection; None if there are none."""
        return self.adata if self._collection is None else self._collection.collection.annotations

    @property
    def _training_counts(self) -> Any:
        """Counts of those cells, in memory or on disk."""
        if self._collection is None:
            return self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        return self._collection.collection.counts

    def _use_collection(self, data: Any, strategy: Any) -> None:
        """Train on a collection from now on, after checking that the model can."""
        if not isinstance(data, CollectionDataModule):
            raise UnsupportedError(
                f"datamodule is a {type(data).__name__}; only what setup_annbatch returns has the fields of this model."
            )
        if self.is_query_:
            raise UnsupportedError("Queries are mapped from an AnnData (backed, if need be), not from a collection.")
        if use_distributed_sampler(strategy):
            raise UnsupportedError(
                "A collection is read by one process; train in one, or from an AnnData (backed, if need be)."
            )
        own, other = (_comparable(registry) for registry in (self.registry, data.registry))
        if different := sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key)):
            raise DataError(
                f"The model was made for other {', '.join(different)} than the collection has; set the collection up "
                "with the arguments of the model's, or make a new model: CFMVC(registry=datamodule.registry)."
            )
        self._collection = data


_SETUP_ARGUMENTS = (
    "layer",
    "batch_key",
    "labels_key",
    "perturbation_key",
    "control_category",
    "dose_key",
    "spatial_key",
    "sample_key",
    "size_factor_key",
    "categorical_covariate_keys",
    "continuous_covariate_keys",
    "allow_non_integer",
    "perturbation_embeddings_key",
)
_COLUMNS = ("batch_key", "labels_key", "perturbation_key", "dose_key", "sample_key", "size_factor_key")
_COLUMN_LISTS = ("categorical_covariate_keys", "continuous_covariate_keys")


def _comparable(registry: Mapping[str, Any]) -> dict[str, str]:
    """Return what a registry says of each field, but for the number of cells, as text."""
    states = {key: dict(value["state_registry"]) for key, value in registry[FIELD_REGISTRIES_KEY].items()}
    for state in states.values():
        state.pop(fields.LayerField.N_OBS_KEY, None)
    plain = {key: json.dumps(state, default=_listed, sort_keys=True) for key, state in states.items()}
    return {key: text for key, text in plain.items() if text != "{}"}


def _listed(value: Any) -> Any:
    return np.asarray(value).tolist()
