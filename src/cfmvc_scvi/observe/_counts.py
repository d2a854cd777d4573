"""Counts, rates and uniforms as this room takes them: checked once, as float64."""

from __future__ import annotations

__all__ = [
    "CP10K",
    "Array",
    "cell_gene_matrix",
    "count_matrix",
    "depth_of",
    "gene_vector",
    "mean_rate",
    "uniform_matrix",
    "uniforms_at",
]

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError

Array = NDArray[np.float64]

CP10K = 1e4  # the unit of every rate: counts per 10k counts of the cell


def count_matrix(counts: Any) -> sp.csr_matrix:
    """Copy counts (cells, genes) to CSR of float64 without stored zeros; DataError unless whole and not negative."""
    matrix = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    wrong = np.flatnonzero(~np.isfinite(matrix.data) | (matrix.data < 0) | (matrix.data != np.rint(matrix.data)))
    if wrong.size:
        cell = np.searchsorted(matrix.indptr, wrong[0], side="right") - 1
        raise DataError(
            f"{wrong.size} of {matrix.nnz} counts are not whole numbers >= 0, first cell {cell}, gene "
            f"{matrix.indices[wrong[0]]}: {matrix.data[wrong[0]]}. Pass raw UMI counts."
        )
    return matrix


def depth_of(matrix: sp.spmatrix) -> Array:
    """Total counts of each cell, (cells,)."""
    return np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()


def mean_rate(counts: Any) -> Array:
    """Mean over cells of the counts per 10k, sum_i 1e4 x_ig / l_i / n, (genes,): the own rate of a group of cells.

    Parameters
    ----------
    counts
        UMI counts (cells, genes), sparse; cells without counts contribute zero.

    Raises
    ------
    DataError
        If there is no cell, or a count is not a whole number >= 0.
    """
    matrix = count_matrix(counts)
    if matrix.shape[0] == 0:
        raise DataError("There is no cell to take rates from; pass at least one.")
    return CP10K * np.asarray((1 / np.maximum(depth_of(matrix), 1.0)) @ matrix).ravel() / matrix.shape[0]


def gene_vector(name: str, values: ArrayLike, n_genes: int, *, positive: bool = False) -> Array:
    """Check a vector (genes,) of finite numbers >= 0, or > 0 if `positive`."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (n_genes,):
        raise DataError(f"{name} has shape {vector.shape}, expected ({n_genes},): one value per gene of the counts.")
    wrong = np.flatnonzero(~np.isfinite(vector) | (vector < 0) | (positive & (vector == 0)))
    if wrong.size:
        bound = "> 0" if positive else ">= 0"
        raise DataError(
            f"{name} must be finite and {bound}: {wrong.size} of {n_genes} genes are not, first gene {wrong[0]}: "
            f"{vector[wrong[0]]}."
        )
    return vector


def cell_gene_matrix(name: str, values: ArrayLike, shape: tuple[int, int]) -> Array:
    """Check a matrix (cells, genes) of finite numbers >= 0."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.shape != shape:
        raise DataError(f"{name} has shape {matrix.shape}, expected {shape}: (cells, genes) of the counts.")
    if matrix.size and not (matrix.min() >= 0 and matrix.max() < np.inf):  # NaN fails both
        n_wrong = np.count_nonzero(~((matrix >= 0) & (matrix < np.inf)))
        raise DataError(f"{name} must be finite and >= 0; {n_wrong} of {matrix.size} values are not.")
    return matrix


def uniform_matrix(name: str, values: ArrayLike, shape: tuple[int, int]) -> Array:
    """Check uniforms (cells, genes) inside the open interval (0, 1)."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.shape != shape:
        raise DataError(f"{name} has shape {matrix.shape}, expected {shape}: (cells, genes) of the counts.")
    _require_inside(name, matrix)
    return matrix


def uniforms_at(name: str, values: Any, counts: sp.csr_matrix) -> Array:
    """Return the uniforms, (cells, genes) or sparse, at the stored counts, in their order; checked."""
    if not sp.issparse(values):
        matrix = uniform_matrix(name, values, counts.shape)
        return matrix[np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)), counts.indices]
    same = values.shape == counts.shape and values.format == "csr" and values.nnz == counts.nnz
    if not (same and (values.indptr == counts.indptr).all() and (values.indices == counts.indices).all()):
        raise DataError(f"{name} is sparse; it must be CSR, with values where the counts are not zero, and only there.")
    _require_inside(name, values.data)
    return values.data


def _require_inside(name: str, values: Array) -> None:
    if values.size and not (values.min() > 0 and values.max() < 1):  # NaN fails both
        n_wrong = np.count_nonzero(~((values > 0) & (values < 1)))
        raise DataError(f"{name} must lie inside (0, 1); {n_wrong} of {values.size} do not. Use cell_uniforms.")
