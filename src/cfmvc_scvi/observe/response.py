"""Expected response of a cell: what remains of its difference from others without the noise of its counts."""

from __future__ import annotations

__all__ = ["ResponseFilter", "fit_response_filter", "redrawn_counts"]

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe._counts import CP10K, Array, cell_gene_matrix, gene_vector
from cfmvc_scvi.observe._inverse import negative_binomial_inverse

_SINGULAR = 1e-9  # of the largest variance: directions below have no response to shrink


@dataclass(frozen=True)
class ResponseFilter:
    """Shrinks the log changes of cells towards their mean, as far as the noise of the counts explains differences.

    Attributes
    ----------
    mean
        Mean change of the reference cells in log1p CP10k, (genes,).
    axes
        Orthonormal directions in which cells differ, (genes, axes).
    gain
        Share of the observed differences that is expected to be real, (axes, axes).
    """

    mean: Array
    axes: Array
    gain: Array

    def __call__(self, before: ArrayLike, after: ArrayLike) -> Array:
        """Return the expected rates of cells, each a function of its own rates only.

        Parameters
        ----------
        before, after
            CP10k of the cells as they are and as they become, (cells, genes).

        Returns
        -------
        CP10k (cells, genes); each cell has the total that it had in `after`.
        """
        start, end = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
        deviation = (np.log1p(end) - np.log1p(start) - self.mean) @ self.axes
        change = self.mean + deviation @ self.gain @ self.axes.T
        rate = np.maximum(np.expm1(np.log1p(start) + change), 0.0)
        total = rate.sum(axis=1, keepdims=True)
        return rate * (end.sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0))


def fit_response_filter(
    change: ArrayLike, replicates: Iterable[ArrayLike], config: ObservationConfig | None = None
) -> ResponseFilter:
    r"""Fit the linear filter that best recovers the changes of cells from changes predicted from their noisy counts.

    Replicates are the changes predicted from counts redrawn around the rates of the same cells; how they scatter around
    `change` is what the noise of counts does to a prediction. With C the covariance of `change` between cells and N the
    mean square of the scatter, both in the leading principal components of `change`,

    .. math:: G = C^{-1/2} \max(1 - C^{-1/2} N C^{-1/2}, 0) \, C^{1/2}

    (in row vectors), which is the Wiener filter :math:`C^{-1} (C - N)` with the signal C - N kept positive: observed
    changes are signal plus noise. No truth is needed, only the noise of the counts.

    Parameters
    ----------
    change
        Predicted changes of the reference cells in log1p CP10k, (cells, genes).
    replicates
        Changes predicted from redrawn counts of the same cells in the same order, one matrix or more; each is looked at
        once, so that a generator keeps one in memory.
    config
        `response_axes` bounds the principal components; there are at most a quarter as many as cells.

    Raises
    ------
    DataError
        If there is no cell or no replicate, shapes differ, or a change is not finite.

    References
    ----------
    Wiener filter as best linear prediction: Robinson, That BLUP is a good thing, Statistical Science 1991; the noise
    by parametric bootstrap, as simulation-extrapolation does for errors in variables: Cook and Stefanski, JASA 1994.
    """
    settings = config or ObservationConfig()
    values = _changes("change", change)
    if not len(values):
        raise DataError("There is no cell to learn from; pass changes of at least one.")
    mean = values.mean(axis=0)
    size, axes = _principal_axes(values - mean, min(settings.response_axes, len(values) // 4))
    noise, n_replicates = np.zeros((len(size), len(size))), 0
    for replicate in replicates:
        scatter = (_changes("replicate", replicate, values.shape) - values) @ axes
        noise += scatter.T @ scatter / len(values)
        n_replicates += 1
    if not n_replicates:
        raise DataError("There is no replicate to learn the noise from; pass at least one.")
    root = np.sqrt(size)  # the covariance of the changes is diagonal in principal components
    share, directions = np.linalg.eigh(noise / n_replicates / np.outer(root, root))
    kept = (directions * np.clip(1 - share, 0.0, 1.0)) @ directions.T
    return ResponseFilter(mean, axes, kept / root[:, None] * root)


def _changes(name: str, values: ArrayLike, shape: tuple[int, ...] | None = None) -> Array:
    """Check finite changes (cells, genes)."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape != (shape or matrix.shape):
        raise DataError(f"{name} has shape {matrix.shape}, expected {shape or '(cells, genes)'}.")
    if not np.isfinite(matrix).all():
        n_wrong = np.count_nonzero(~np.isfinite(matrix))
        raise DataError(f"{name} must be finite; {n_wrong} of {matrix.size} values are not.")
    return matrix


def _principal_axes(centred: Array, n_axes: int) -> tuple[Array, Array]:
    """Variances (axes,) and orthonormal directions (genes, axes) of at most `n_axes` principal components."""
    if centred.shape[0] <= centred.shape[1]:  # from the smaller of the two Gram matrices
        variance, vectors = np.linalg.eigh(centred @ centred.T / len(centred))
        vectors = centred.T @ vectors
    else:
        variance, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    chosen = np.flatnonzero(variance > _SINGULAR * max(variance[-1], _SINGULAR))[::-1][:n_axes]
    axes = vectors[:, chosen]
    return variance[chosen], axes / np.linalg.norm(axes, axis=0)


def redrawn_counts(rate: ArrayLike, depth: ArrayLike, theta: ArrayLike, uniforms: ArrayLike) -> sp.csr_matrix:
    """Counts of the same cells measured again, x ~ NB(rate * depth / 1e4, theta), by inversion of uniforms.

    Parameters
    ----------
    rate
        CP10k of each cell, (cells, genes).
    depth
        Total counts of each cell, (cells,).
    theta
        Inverse dispersion around these rates, (genes,).
    uniforms
        Inside (0, 1), (cells, genes); see `cell_uniforms`.

    Returns
    -------
    Whole numbers, CSR (cells, genes).

    Raises
    ------
    DataError
        If shapes differ or a value is out of range.
    """
    level = np.asarray(rate, dtype=np.float64)
    totals = gene_vector("depth", depth, len(level))
    mean = cell_gene_matrix("rate", level, level.shape) * (totals / CP10K)[:, None]
    size = np.broadcast_to(gene_vector("theta", theta, level.shape[1], positive=True), level.shape)
    u = cell_gene_matrix("uniforms", uniforms, level.shape)
    some = np.nonzero(u > 1 - mean)  # P(0) >= exp(-mean) >= 1 - mean: the others are zero
    counts = np.zeros_like(mean)
    counts[some] = negative_binomial_inverse(u[some], mean[some], size[some])
    return sp.csr_matrix(counts)
