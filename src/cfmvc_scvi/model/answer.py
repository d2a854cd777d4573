"""Predictions as AnnData: the cells, where they come from, and how they were made."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model.cells import Group, Groups
from cfmvc_scvi.model.prediction import group_names
from cfmvc_scvi.model.question import Known
from cfmvc_scvi.model.virtual import VirtualCells

__all__ = ["check_target", "condition_columns", "installed_versions", "virtual_cells", "with_matrix", "write_back"]

_DRAWN_AT_A_TIME = 1024
_PACKAGES = ("cfmvc-scvi", "scvi-tools", "torch", "anndata")


def condition_columns(known: Known, groups: Groups, prefix: str) -> dict[str, pd.Categorical]:
    """Return the columns ``<prefix>_condition`` and ``<prefix>_context`` of cells of these groups."""
    conditions, contexts = group_names(known, groups)
    return {f"{prefix}_condition": pd.Categorical(conditions), f"{prefix}_context": pd.Categorical(contexts)}


def with_matrix(matrix: sp.csr_matrix | NDArray | None, obs: pd.DataFrame, var: pd.DataFrame) -> AnnData:
    """Return cells with a matrix, or without one, in single precision where it is dense."""
    if matrix is None:
        return AnnData(obs=obs, var=var)
    return AnnData(matrix if sp.issparse(matrix) else np.asarray(matrix, dtype=np.float32), obs=obs, var=var)


def virtual_cells(
    model: Any, virtual: VirtualCells, names: NDArray[np.str_], groups: Sequence[Group], output: str
) -> AnnData:
    """Draw cells of these names, each of its group, with the columns that `setup_anndata` reads."""
    code = Groups.of(*(np.array([getattr(group, key) for group in groups]) for key in ("design", "context", "batch")))
    rows = np.empty(len(names), dtype=np.int64)
    latent = np.empty((len(names), model.module.n_intrinsic), dtype=np.float32)
    blocks: list[Any] = []
    order = []
    for number, group in enumerate(code.kinds):
        members = np.flatnonzero(code.code == number)
        for part in np.array_split(members, -(-len(members) // _DRAWN_AT_A_TIME)):
            drawn = virtual.draw(names[part], group, output)
            rows[part], latent[part] = drawn.rows, drawn.latent
            blocks.append(drawn.matrix)
            order.append(part)
    stack = sp.vstack if output == "counts" else np.vstack
    matrix = None if output == "latent" else stack(blocks)[np.argsort(np.concatenate(order))]
    obs = pd.DataFrame(condition_columns(model._known, code, "target"), index=names.astype(object))
    obs["reference_cell"] = model._reference.panel.names[rows].astype(object)
    obs = obs.assign(**_registered_columns(model, groups, rows))
    result = with_matrix(matrix, obs, pd.DataFrame(index=model._var_names.astype(object)))
    result.obsm["X_cfmvc_counterfactual"] = latent
    return result


def _registered_columns(model: Any, groups: Sequence[Group], rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return the columns that `setup_anndata` reads, of virtual cells that grew from these rows of the panel."""
    designs, batch = np.stack([group.row for group in groups]), np.array([group.batch for group in groups])
    columns = {model._setup_argument("perturbation_key"): pd.Categorical(model.vocabulary.names(designs))}
    if model._setup_argument("dose_key") is not None:
        columns[model._setup_argument("dose_key")] = designs.max(axis=1)
    keys = (CFMVC_REGISTRY_KEYS.LABELS_KEY, CFMVC_REGISTRY_KEYS.SAMPLE_KEY, CFMVC_REGISTRY_KEYS.BATCH_KEY)
    for argument, key in zip(("labels_key", "sample_key", "batch_key"), keys, strict=True):
        column = model._setup_argument(argument)
        if column is None:
            continue
        code = model._reference.panel.tensors[key][rows].ravel().astype(int)
        if key == CFMVC_REGISTRY_KEYS.BATCH_KEY:
            code = np.where(batch >= 0, batch, code)
        columns[column] = pd.Categorical(np.asarray(model.get_state_registry(key)["categorical_mapping"])[code])
    return columns


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that a prediction depends on."""
    return {name: _version(name) for name in _PACKAGES}


@cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)


def check_target(adata: AnnData, var_names: Iterable[str]) -> None:
    """Refuse data that a prediction of these genes cannot be written into."""
    if adata.is_view:
        raise DataError("key_added cannot write into a view; pass adata.copy(), or leave key_added out.")
    missing = adata.var_names.difference(pd.Index(list(var_names)))
    if len(missing):
        raise DataError(
            f"key_added needs data with the genes of the model only; {len(missing)} are not of it, first "
            f"{missing[0]!r}. Subset the genes, or leave key_added out."
        )


def write_back(adata: AnnData, result: AnnData, indices: NDArray[np.int64], key: str) -> None:
    """Write a prediction into the data it was asked of; cells that were not asked about get zeros, latents NaN."""
    latent = np.full((adata.n_obs, result.obsm["X_cfmvc"].shape[1]), np.nan, dtype=np.float32)
    latent[indices] = result.obsm["X_cfmvc_counterfactual"]
    adata.obsm[f"X_{key}"] = latent
    adata.uns[key] = result.uns["cfmvc"]
    if result.X is None:
        return
    genes = pd.Index(result.var_names).get_indexer(adata.var_names)
    scatter = sp.csr_matrix((np.ones(len(indices)), (indices, np.arange(len(indices)))), (adata.n_obs, len(indices)))
    adata.layers[key] = (scatter @ sp.csr_matrix(result.X)[:, genes]).astype(np.float32).tocsr()
