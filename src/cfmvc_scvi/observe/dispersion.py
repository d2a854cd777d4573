"""Dispersion of the negative binomial from groups of real cells."""

from __future__ import annotations

__all__ = ["perturbed_dispersion", "residual_dispersion", "split_dispersion"]

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe._counts import Array, count_matrix, depth_of, gene_vector


def perturbed_dispersion(
    groups: Sequence[sp.spmatrix], weights: ArrayLike, config: ObservationConfig | None = None
) -> Array:
    r"""Inverse dispersion theta of each gene, from the moments of perturbed cells of other contexts.

    With depths l scaled to mean 1 in each group and x_i ~ NB(m l_i, theta) independent,

        M = sum_{i != j} x_i x_j / sum_{i != j} l_i l_j       has mean m^2,
        S = sum_i x_i (x_i - 1) / sum_i l_i^2                 has mean m^2 (1 + 1 / theta),
        theta = (sum_k w_k M_k + a) / (sum_k w_k max(S_k - M_k, 0) + a / prior),

    clipped to bounds. No count is divided by a depth, so that shallow cells and cells without counts do no harm.
    Control cells must not be used: a gene that the perturbation turns on looks wildly over-dispersed in them.

    Parameters
    ----------
    groups
        UMI counts of each group, sparse (cells of the group, genes); fewer than two cells with counts say nothing.
    weights
        w, weight of each group, not negative, (groups,); they are normalised.
    config
        `dispersion_prior`, its weight a in squared mean counts `dispersion_prior_weight`, and `dispersion_bounds`.

    Returns
    -------
    theta, (genes,); variance of a count = mean + mean^2 / theta.

    Raises
    ------
    DataError
        If there is no group, genes differ between groups, or weights do not fit.
    """
    settings = config or ObservationConfig()
    matrices = [count_matrix(group) for group in groups]
    sizes = sorted({matrix.shape[1] for matrix in matrices})
    if len(sizes) != 1:
        raise DataError(
            f"The {len(matrices)} groups have these numbers of genes: {sizes}; pass groups of the same genes."
        )
    share = gene_vector("weights", weights, len(matrices))
    if not share.sum() > 0:
        raise DataError("All weights are zero; give at least one group a positive weight.")
    squared, excess = np.zeros(sizes[0]), np.zeros(sizes[0])
    for weight, matrix in zip(share / share.sum(), matrices, strict=True):
        pairs, same = _second_moments(matrix)
        squared += weight * pairs
        excess += weight * np.maximum(same - pairs, 0)
    prior = settings.dispersion_prior_weight
    theta = (squared + prior) / (excess + prior / settings.dispersion_prior)
    return np.clip(theta, *settings.dispersion_bounds)


def _second_moments(matrix: sp.csr_matrix) -> tuple[Array, Array]:
    """M and S of `perturbed_dispersion` in one group, (genes,) each; zeros where no two cells have counts."""
    depth = depth_of(matrix)
    if np.count_nonzero(depth) < 2:
        return np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1])
    depth /= depth.mean()
    total = np.asarray(matrix.sum(axis=0)).ravel()
    squares = np.asarray(matrix.power(2).sum(axis=0)).ravel()
    own = (depth**2).sum()
    return (total**2 - squares) / (depth.sum() ** 2 - own), (squares - total) / own


def residual_dispersion(
    theta: ArrayLike, heterogeneity_cv2: ArrayLike, config: ObservationConfig | None = None
) -> Array:
    """Inverse dispersion left when a known factor between cells explains part of the variance.

    If x given h is NB(m h, theta') with h of mean 1 and squared coefficient of variation c, then x has the dispersion
    1 / theta = (1 + c) / theta' + c, hence 1 / theta' = max((1 / theta - c) / (1 + c), floor).

    Parameters
    ----------
    theta
        Inverse dispersion of all variance, (genes,).
    heterogeneity_cv2
        c, (genes,).
    config
        The floor is 1 / the upper one of `dispersion_bounds`.

    Returns
    -------
    theta', (genes,).

    Raises
    ------
    DataError
        If shapes differ or a value is out of range.
    """
    settings = config or ObservationConfig()
    total, known = _dispersions(theta, heterogeneity_cv2)
    return 1 / np.maximum((1 / total - known) / (1 + known), 1 / settings.dispersion_bounds[1])


def split_dispersion(
    theta: ArrayLike, heterogeneity_cv2: ArrayLike, config: ObservationConfig | None = None
) -> tuple[Array, Array]:
    """Share w of differences between cells that is kept so that counts vary as `theta` says, and the dispersion left.

    Differences that a network makes between cells may be larger than those of real cells: trained on few of them, it
    tells cells apart by the noise of their counts. w = min(1, sqrt(c_0 / c)), where c_0 is the squared coefficient of
    variation at which `residual_dispersion` reaches its floor; the dispersion left is that beside w^2 c.

    Parameters
    ----------
    theta
        Inverse dispersion of all variance, (genes,).
    heterogeneity_cv2
        c, (genes,).
    config
        `dispersion_bounds`.

    Returns
    -------
    w in [0, 1] and theta', (genes,) each.

    Raises
    ------
    DataError
        If shapes differ or a value is out of range.
    """
    settings = config or ObservationConfig()
    total, known = _dispersions(theta, heterogeneity_cv2)
    floor = 1 / settings.dispersion_bounds[1]
    most = np.maximum((1 / total - floor) / (1 + floor), 0.0)
    kept = np.minimum(known, most)
    share = np.sqrt(np.divide(kept, known, out=np.ones_like(known), where=known > 0))
    return share, residual_dispersion(total, kept, settings)


def _dispersions(theta: ArrayLike, heterogeneity_cv2: ArrayLike) -> tuple[Array, Array]:
    total = gene_vector("theta", theta, np.size(theta), positive=True)
    return total, gene_vector("heterogeneity_cv2", heterogeneity_cv2, len(total))
