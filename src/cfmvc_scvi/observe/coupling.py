"""Coupled counts: a cell's own counts moved to other gene rates by thinning and superposition with fixed uniforms."""

from __future__ import annotations

__all__ = ["couple_counts", "coupled_columns", "expected_rate", "profile_pair"]

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.observe._counts import (
    CP10K,
    Array,
    cell_gene_matrix,
    count_matrix,
    depth_of,
    gene_vector,
    uniform_matrix,
)
from cfmvc_scvi.observe._inverse import binomial_inverse, negative_binomial_inverse


def couple_counts(
    counts: sp.spmatrix,
    own_rate: ArrayLike,
    target_rate: ArrayLike,
    theta: ArrayLike,
    thinning_uniforms: ArrayLike,
    superposition_uniforms: ArrayLike,
    profiles: tuple[ArrayLike, ArrayLike] | None = None,
) -> sp.csr_matrix:
    r"""Counterfactual counts of cells whose genes go from `own_rate` to `target_rate`.

    With the rates m = own Q and m' = target K of cell i, ratio rho = m' / m and depth l,

        m' <= m:  x' = Binomial^-1(u; x, rho)                                     (thinning)
        m' >  m:  x' = x + NB^-1(u'; mean (m' - m) l / 1e4, dispersion theta)      (superposition)

    x' is monotone in the target rate. Where m' = m, counts stay exactly as they are. Where x is NB(m, theta), the
    thinned x' is NB(rho m, theta).

    Parameters
    ----------
    counts
        UMI counts of the cells, sparse (cells, genes).
    own_rate, target_rate
        Counts per 10k of the context's reference cells as they are and as they shall become, (genes,).
    theta
        Inverse dispersion of what is added, (genes,).
    thinning_uniforms, superposition_uniforms
        u and u', inside (0, 1), (cells, genes); see `cell_uniforms` and `partner_uniforms`.
    profiles
        Q and K: rates of each cell relative to the context's, as it is and as it becomes, (cells, genes) each; by
        default all are 1.

    Returns
    -------
    Integer counts, CSR (cells, genes). Their depth is that of the new counts, not of the old.

    Raises
    ------
    DataError
        If shapes differ, counts are not whole numbers >= 0, or a value is out of range.

    Notes
    -----
    Deterministic given the uniforms. Cost: non-zeros of the genes that fall, cells x genes that rise.

    References
    ----------
    Thinning and superposition of gamma-Poisson counts: Kingman, Poisson Processes, 1993, chapters 2 and 5.
    """
    matrix = count_matrix(counts)
    own = gene_vector("own_rate", own_rate, matrix.shape[1])
    target = gene_vector("target_rate", target_rate, matrix.shape[1])
    size = gene_vector("theta", theta, matrix.shape[1], positive=True)
    thinning = uniform_matrix("thinning_uniforms", thinning_uniforms, matrix.shape)
    superposition = uniform_matrix("superposition_uniforms", superposition_uniforms, matrix.shape)
    relative = profile_pair(profiles, matrix.shape)
    changes = np.full(len(own), True) if relative is not None else target != own
    genes = np.flatnonzero(changes)
    changed = coupled_columns(matrix.tocsc(), genes, own, target, size, thinning, superposition, relative).tocoo()
    entries = matrix.tocoo()
    kept = ~changes[entries.col]
    values = np.concatenate([entries.data[kept], changed.data])
    rows = np.concatenate([entries.row[kept], changed.row])
    columns = np.concatenate([entries.col[kept], genes[changed.col]])
    result = sp.csr_matrix((values.astype(np.int64), (rows, columns)), shape=matrix.shape)
    result.eliminate_zeros()
    return result


def profile_pair(profiles: tuple[ArrayLike, ArrayLike] | None, shape: tuple[int, int]) -> tuple[Array, Array] | None:
    """Check the two relative profiles; None stays None."""
    if profiles is None:
        return None
    before, after = profiles
    return cell_gene_matrix("profile before", before, shape), cell_gene_matrix("profile after", after, shape)


def coupled_columns(
    counts: sp.csc_matrix,
    genes: NDArray[np.intp],
    own: Array,
    target: Array,
    theta: Array,
    thinning_uniforms: Array,
    superposition_uniforms: Array,
    profiles: tuple[Array, Array] | None,
) -> sp.csc_matrix:
    """Columns `genes` of the coupled counts, (cells, len(genes)), of checked float64 arguments; see `couple_counts`.

    Fastest with uniforms and profiles in column-major (Fortran) order.
    """
    block = counts[:, genes]
    gene_of = np.repeat(genes, np.diff(block.indptr))
    own_of, target_of = own[gene_of], target[gene_of]
    if profiles is not None:
        before, after = profiles
        own_of, target_of = own_of * before[block.indices, gene_of], target_of * after[block.indices, gene_of]
    entry = np.flatnonzero(target_of < own_of)
    cell, gene = block.indices[entry], gene_of[entry]
    ratio = target_of[entry] / own_of[entry]
    block.data[entry] = binomial_inverse(thinning_uniforms[cell, gene], block.data[entry], ratio)

    rising = np.arange(len(genes)) if profiles is not None else np.flatnonzero(target[genes] > own[genes])
    added = _superposed(genes[rising], depth_of(counts), own, target, theta, superposition_uniforms, profiles)
    gene, cell = np.nonzero(added)
    values = added[gene, cell]
    return block + sp.csc_matrix((values, (cell, rising[gene])), shape=block.shape)


def _superposed(
    genes: NDArray[np.intp],
    depth: Array,
    own: Array,
    target: Array,
    theta: Array,
    uniforms: Array,
    profiles: tuple[Array, Array] | None,
) -> Array:
    """Counts added to the genes that rise, gene-major: (len(genes), cells)."""
    own_rate, target_rate = own[genes, None], target[genes, None]
    if profiles is not None:
        own_rate, target_rate = own_rate * profiles[0].T[genes], target_rate * profiles[1].T[genes]
    mean = np.maximum(target_rate - own_rate, 0.0) * (depth / CP10K)
    u = uniforms.T[genes]
    added = np.zeros_like(mean)
    some = np.nonzero(u > 1 - mean)  # P(0) >= exp(-mean) >= 1 - mean: the others are zero without a power to compute
    added[some] = negative_binomial_inverse(u[some], mean[some], theta[genes[some[0]]])
    return added


def expected_rate(
    rate: ArrayLike,
    own_rate: ArrayLike,
    target_rate: ArrayLike,
    profiles: tuple[ArrayLike, ArrayLike] | None = None,
) -> Array:
    """Mean version of `couple_counts`: expected counts per 10k of each cell after the counterfactual.

    A gene that falls is multiplied by m' / m, to one that rises m' - m is added, and each cell is then scaled back to
    the total it had.

    Parameters
    ----------
    rate
        Expected counts per 10k of each cell as it is, (cells, genes).
    own_rate, target_rate, profiles
        As in `couple_counts`.

    Returns
    -------
    Expected counts per 10k, (cells, genes); `rate` itself, bit for bit, where m' = m in all genes.

    Raises
    ------
    DataError
        If shapes differ or a value is out of range.
    """
    before = np.asarray(rate, dtype=np.float64)
    before = cell_gene_matrix("rate", before, (before.shape[0], np.size(own_rate)))
    own = gene_vector("own_rate", own_rate, before.shape[1])
    target = gene_vector("target_rate", target_rate, before.shape[1])
    relative = profile_pair(profiles, before.shape)
    if relative is not None:
        own, target = own * relative[0], target * relative[1]
    falls = target < own
    after = np.where(falls, before * (target / np.where(falls, own, 1.0)), before + np.maximum(target - own, 0.0))
    total = after.sum(axis=1, keepdims=True)
    return after * (before.sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0))
