"""Which contexts resemble each other: distances of control profiles, similarity weights and kernels."""

from __future__ import annotations

__all__ = ["context_kernel", "kernel", "linear_kernel", "profile_distances", "project_psd", "similarity_weights"]

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

Array = NDArray[np.float64]

_SMALLEST_EIGENVALUE = 1e-3


def profile_distances(profiles: Array, noise: Array) -> Array:
    r"""Euclidean distances of the profiles without the part that sampling noise adds.

    D_ij^2 = |y_i - y_j|^2 - sum_g (v_ig + v_jg), and at least its own standard error under equality,
    sqrt(2 sum_g (v_ig + v_jg)^2): two profiles that cannot be told apart are as far as could be missed, not zero.

    Parameters
    ----------
    profiles
        Control pseudo-bulks (contexts, genes).
    noise
        Their sampling variances (contexts, genes).

    Returns
    -------
    Distances (contexts, contexts), symmetric with a zero diagonal.
    """
    row, column = np.triu_indices(len(profiles), 1)
    pair_noise = noise[row] + noise[column]
    squared = pdist(profiles, "sqeuclidean") - pair_noise.sum(axis=1)
    return squareform(np.sqrt(np.maximum(squared, np.sqrt(2 * (pair_noise**2).sum(axis=1)))), checks=False)


def similarity_weights(distances: Array, power: float) -> Array:
    """Weights (d_k / d_min)^-power, normalised to sum to one; contexts at distance zero share all the weight.

    Parameters
    ----------
    distances
        Distances to the candidate contexts (candidates,), at least one.
    power
        Exponent gamma: 0 weighs all alike, large values pick the nearest.
    """
    nearest = distances.min()
    raw = (distances == 0).astype(float) if nearest == 0 else (distances / nearest) ** -power
    return raw / raw.sum()


def kernel(distances: Array, length: float) -> Array:
    """Positive definite kernel exp(-D^2 / 2 length^2) of distances in units of their median, (contexts, contexts).

    Noise-corrected distances need not be Euclidean, hence the projection. Distances of zero everywhere give a kernel
    of ones.
    """
    between = distances[np.triu_indices(len(distances), 1)]
    unit = np.median(between) if between.size and np.median(between) > 0 else 1.0
    raw = np.exp(-0.5 * (distances / (unit * length)) ** 2)
    return project_psd(raw + _SMALLEST_EIGENVALUE * np.eye(len(raw)))


def linear_kernel(distances: Array) -> Array:
    """Inner products of the profiles about their mean, scaled to a mean square of one, (contexts, contexts).

    What varies like this is linear in the control profile, and goes on beyond the contexts that were seen, where
    `kernel` falls back to the mean. Read off the distances by double centring (Torgerson 1952), without the negative
    part that their noise correction may leave. Distances of zero everywhere give a kernel of ones.
    """
    n = len(distances)
    centred = np.eye(n) - 1 / n
    products = -0.5 * centred @ distances**2 @ centred
    total = np.trace(products)
    return project_psd(products * (n / total) + _SMALLEST_EIGENVALUE * np.eye(n)) if total > 0 else np.ones((n, n))


def context_kernel(distances: Array, length: float) -> Array:
    """How alike contexts respond: (2 K + (n - 2) L) / n with the local kernel K and the linear kernel L, (n, n).

    A line needs contexts to be drawn through: between two there is none, and with many it carries most of the weight.
    """
    linear_share = max(0.0, 1 - 2 / len(distances))
    return linear_share * linear_kernel(distances) + (1 - linear_share) * kernel(distances, length)


def project_psd(matrix: Array, smallest: float = _SMALLEST_EIGENVALUE) -> Array:
    """Nearest symmetric matrix (Frobenius) whose eigenvalues are at least `smallest` (Higham 1988), (n, n)."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, smallest)) @ vectors.T
