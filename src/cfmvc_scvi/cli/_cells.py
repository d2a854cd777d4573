"""Reading and choosing cells."""

from __future__ import annotations

__all__ = ["counts_in_x", "of_control", "read_cells"]

from pathlib import Path

import numpy as np
from anndata import AnnData, read_h5ad
from numpy.typing import NDArray

from cfmvc_scvi.data import assert_self_contained, check_counts, check_labels
from cfmvc_scvi.errors import DataError


def read_cells(path: Path, *, backed: bool = False) -> AnnData:
    """Read an h5ad file that refers to no other file; `backed` leaves X in the file.

    Raises
    ------
    UnsafeFileError
        If the file refers to another one.
    DataError
        If it is not the h5ad file of an AnnData.
    """
    assert_self_contained(path)
    try:
        adata = read_h5ad(path, backed="r" if backed else None)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:  # what anndata makes of other HDF5
        raise DataError(f"'{path}' is not an h5ad file that anndata can read: {error}") from error
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise DataError(f"'{path}' has {adata.n_obs} cells and {adata.n_vars} genes: there is nothing to read.")
    return adata


def of_control(adata: AnnData, perturbation_key: str, control: str) -> NDArray[np.intp]:
    """Rows of the control cells.

    Raises
    ------
    UnknownConditionError
        If there is no such column.
    DataError
        If there are no control cells.
    """
    labels = check_labels(adata.obs, perturbation_key, "perturbation")
    rows = np.flatnonzero(labels.astype(str) == control)
    if len(rows) == 0:
        raise DataError(
            f"no cell has '{control}' in obs['{perturbation_key}']; name the control, or ask about all cells."
        )
    return rows


def counts_in_x(adata: AnnData, layer: str | None) -> AnnData:
    """Return cells whose X are the counts of a layer, checked to be counts.

    Raises
    ------
    UnknownConditionError
        If there is no such layer.
    DataError
        If they are not counts.
    """
    check_counts(adata, layer)
    return adata if layer is None else AnnData(adata.layers[layer], obs=adata.obs, var=adata.var)
