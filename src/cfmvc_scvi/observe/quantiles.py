"""Uniforms that carry the dependence between the genes of real cells into the superposition."""

from __future__ import annotations

__all__ = ["partner_uniforms", "randomised_quantiles"]

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy import special, stats

from cfmvc_scvi.observe._counts import Array, count_matrix, depth_of, gene_vector, uniform_matrix

_LEAST_MEAN = 1e-6  # a count where the model expects none still has a quantile
_TERMS = 32
_MARGIN = 1e-6  # a count far outside the model must not become one of hundreds in another gene


def randomised_quantiles(counts: sp.spmatrix, theta: ArrayLike, uniforms: ArrayLike) -> Array:
    """Randomised negative-binomial quantiles of the counts of a group given depth, F(x - 1) + v (F(x) - F(x - 1)).

    F is NB(r l, theta) with l the cell's depth and r the gene's share of all counts of the group. Uniform on (0, 1)
    where the model holds; the dependence between the genes of a cell stays.

    Parameters
    ----------
    counts
        UMI counts of a whole group, sparse (cells, genes): its rates are taken from them.
    theta
        Inverse dispersion, (genes,).
    uniforms
        v, inside (0, 1), (cells, genes).

    Returns
    -------
    Quantiles between 1e-6 and 1 - 1e-6, (cells, genes).

    Raises
    ------
    DataError
        If shapes differ, counts are not whole numbers >= 0, or a value is out of range.

    References
    ----------
    Dunn and Smyth, Randomized quantile residuals, J Comput Graph Stat 5 (1996) 236.
    """
    matrix = count_matrix(counts)
    size = gene_vector("theta", theta, matrix.shape[1], positive=True)
    v = uniform_matrix("uniforms", uniforms, matrix.shape)
    depth = depth_of(matrix)
    share = np.asarray(matrix.sum(axis=0)).ravel() / max(depth.sum(), 1.0)
    mean = np.maximum(np.outer(depth, share), _LEAST_MEAN)
    quantiles = v * np.exp(-size * np.log1p(mean / size))
    entries = matrix.tocoo()
    cell, gene, x = entries.row, entries.col, entries.data
    below, up_to = _around(x, mean[cell, gene], size[gene])
    quantiles[cell, gene] = below + v[cell, gene] * (up_to - below)
    return np.clip(quantiles, _MARGIN, 1 - _MARGIN)


def _around(x: Array, mean: Array, theta: Array) -> tuple[Array, Array]:
    """F(x - 1) and F(x) of NB(mean, theta) at counts x >= 1: by summing from zero, and beyond `_TERMS` by betainc."""
    below, up_to = np.empty_like(x), np.empty_like(x)
    large = np.flatnonzero(x > _TERMS)
    p = theta[large] / (theta[large] + mean[large])
    below[large], up_to[large] = (special.betainc(theta[large], k, p) for k in (x[large], x[large] + 1))

    active = np.flatnonzero(x <= _TERMS)
    k, size, ratio = x[active], theta[active], mean[active] / (mean[active] + theta[active])
    pmf = np.exp(-size * np.log1p(mean[active] / size))
    cdf = pmf
    for term in range(1, _TERMS + 1):
        pmf = pmf * ratio * (size + term - 1) / term
        before, cdf = cdf, cdf + pmf
        ended = np.flatnonzero(k == term)
        below[active[ended]], up_to[active[ended]] = before[ended], cdf[ended]
        rest = np.flatnonzero(k > term)
        active = active.take(rest)
        k, size, ratio, pmf, cdf = (values.take(rest) for values in (k, size, ratio, pmf, cdf))
    return below, up_to


def partner_uniforms(counts: sp.spmatrix, theta: ArrayLike, uniforms: ArrayLike) -> Array:
    """Uniforms for the superposition that a group of real perturbed cells lends: ranks of their randomised quantiles.

    u = (rank + v) / n, with rank 0 .. n - 1 of the cell's `randomised_quantiles` in its gene. Uniform in each gene
    whether or not the negative binomial fits; where it does not, plain quantiles distort what is added.

    Parameters
    ----------
    counts, theta, uniforms
        As in `randomised_quantiles`: a whole group, from which partners are then drawn, so that what one cell borrows
        does not depend on what others do.

    Returns
    -------
    Uniforms inside (0, 1), (cells, genes).

    Raises
    ------
    DataError
        As `randomised_quantiles`.
    """
    quantiles = randomised_quantiles(counts, theta, uniforms)
    if not len(quantiles):
        return quantiles
    ranks = stats.rankdata(quantiles, method="ordinal", axis=0) - 1
    return np.clip((ranks + np.asarray(uniforms)) / len(quantiles), _MARGIN, 1 - _MARGIN)
