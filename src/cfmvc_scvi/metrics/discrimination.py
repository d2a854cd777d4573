"""Whether a prediction is nearest to its own truth, among the truths of the other perturbations or contexts."""

from __future__ import annotations

__all__ = ["centroid_accuracy", "pds_cosine"]

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values, same_genes


def _paired(predicted: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    p, t = cell_values("predicted", predicted, min_cells=2), cell_values("truth", truth, min_cells=2)
    same_genes(predicted=p, truth=t)
    if len(p) != len(t):
        raise DataError(f"{len(p)} predictions for {len(t)} truths; row i of both must be the same group.")
    return p, t


def pds_cosine(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """Perturbation discrimination score of each group, 1 - rank / (n - 1), by cosine similarity of effects.

    rank counts the true effects more similar to the predicted one than its own; equally similar ones count half, so
    that a prediction without effect scores .5. Cosine does not reward the size of an effect (L1 and L2 do).

    Parameters
    ----------
    predicted, truth
        Effects Delta (groups, genes), one row per perturbation or context, the same rows on both sides.

    Returns
    -------
    Scores in [0, 1], (groups,).

    Raises
    ------
    DataError
        If there are fewer than two groups, the shapes differ, or a true effect is zero.

    Notes
    -----
    The definition of the Virtual Cell Challenge 2026 (cell-eval2: cosine, n - 1, mid-rank), without its exclusion of
    target genes.
    """
    p, t = _paired(predicted, truth)
    length = np.linalg.norm(t, axis=1)
    if (length == 0).any():
        raise DataError(
            f"{int((length == 0).sum())} true effects are zero: their direction is not defined. Leave them out."
        )
    size = np.linalg.norm(p, axis=1, keepdims=True)
    similarity = (p / np.where(size > 0, size, 1.0)) @ (t / length[:, None]).T
    own = np.diag(similarity)[:, None]
    rank = (similarity > own).sum(axis=1) + 0.5 * ((similarity == own).sum(axis=1) - 1)
    return 1.0 - rank / (len(t) - 1)


def centroid_accuracy(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Share of predicted profiles (groups, genes) whose nearest true profile (Euclidean) is their own; ties miss."""
    p, t = _paired(predicted, truth)
    distance = cdist(p, t)
    own = np.diag(distance).copy()
    np.fill_diagonal(distance, np.inf)
    return float(np.mean(own < distance.min(axis=1)))
