"""Which contexts resemble each other: distances of control profiles, similarity weights and kernels."""

from __future__ import annotations

__all__ = ["kernel", "profile_distances", "project_psd", "similarity_weights"]

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


def project_psd(matrix: Array, smallest: float = _SMALLEST_EIGENVALUE) -> Array:
    """Nearest symmetric matrix (Frobenius) whose eigenvalues are at least `smallest` (Higham 1988), (n, n)."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, smallest)) @ vectors.T
