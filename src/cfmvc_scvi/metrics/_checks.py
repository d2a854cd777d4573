"""Arrays as this room takes them: checked once, as float64."""

from __future__ import annotations

__all__ = ["Array", "cell_values", "gene_indices", "profile", "same_genes"]

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError, NonFiniteError

Array = NDArray[np.float64]


def _finite(name: str, values: Array) -> None:
    n_bad = values.size - np.count_nonzero(np.isfinite(values))
    if n_bad:
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise NonFiniteError(f"{name} has {n_bad} non-finite values, the first at {first}; repair them before scoring.")


def cell_values(name: str, values: Any, *, min_cells: int = 1) -> Array:
    """`values` as a dense float64 matrix (cells, genes); DataError unless that is possible, NonFiniteError on NaN."""
    dense = values.toarray() if sp.issparse(values) else values
    matrix = np.asarray(dense, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise DataError(f"{name} has shape {matrix.shape}; pass a matrix (cells, genes) with at least one gene.")
    if matrix.shape[0] < min_cells:
        raise DataError(f"{name} has {matrix.shape[0]} cells; at least {min_cells} are needed.")
    _finite(name, matrix)
    return matrix


def profile(name: str, values: ArrayLike) -> Array:
    """`values` as a float64 vector (genes,); DataError if it is no vector, NonFiniteError on NaN."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size < 2:
        raise DataError(f"{name} has shape {vector.shape}; pass a vector (genes,) of at least two genes.")
    _finite(name, vector)
    return vector


def same_genes(**arrays: Array) -> None:
    """DataError unless all arrays have the same length of their last axis."""
    sizes = {name: array.shape[-1] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"Different numbers of genes: {sizes}. Bring them to the same genes in the same order first.")


def gene_indices(genes: ArrayLike, n_genes: int) -> NDArray[np.intp]:
    """`genes` as indices; DataError if one is no index of `n_genes` genes, or none is given."""
    index = np.asarray(genes)
    if index.ndim != 1 or index.size == 0 or not np.issubdtype(index.dtype, np.integer):
        raise DataError(f"genes has shape {index.shape} and type {index.dtype}; pass a non-empty vector of indices.")
    outside = index[(index < 0) | (index >= n_genes)]
    if outside.size:
        raise DataError(f"{outside.size} gene indices are outside 0..{n_genes - 1}, the first: {outside[0]}.")
    return index.astype(np.intp)
