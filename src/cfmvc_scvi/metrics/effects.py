"""How well the mean effect of a perturbation is predicted: correlations and weighted errors of pseudo-bulk profiles.

A profile is the mean over cells of log1p(counts per 10k), (genes,); an effect Delta is the profile of perturbed cells
minus that of the control cells of the same context.
"""

from __future__ import annotations

__all__ = [
    "de_scores",
    "log_normalize",
    "pearson_delta",
    "pearson_delta_top",
    "r2_of_means",
    "score_weights",
    "top_genes",
    "weighted_mse",
    "weighted_r2",
]

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values, profile, same_genes

_NO_EFFECT = 1e-9  # log1p CP10k: differences below this are rounding of sums, not an effect


def log_normalize(counts: ArrayLike | sp.spmatrix, target_sum: float = 1e4) -> Array:
    """log1p of counts scaled to a common depth, y = log1p(target_sum x / sum_g x); cells without counts stay zero.

    Parameters
    ----------
    counts
        UMI counts (cells, genes), sparse or dense.
    target_sum
        Depth after scaling; 1e4 gives log1p(CP10k).

    Returns
    -------
    Dense float64 values (cells, genes).

    Raises
    ------
    DataError
        If a count is negative, or `target_sum` is not positive.
    NonFiniteError
        If a count is NaN or infinite.
    """
    if not target_sum > 0:
        raise DataError(f"target_sum is {target_sum}; it must be positive.")
    values = cell_values("counts", counts)
    n_negative = int((values < 0).sum())
    if n_negative:
        raise DataError(f"counts has {n_negative} negative values, the lowest {values.min()}; pass raw UMI counts.")
    depth = values.sum(axis=1, keepdims=True)
    return np.log1p(values * (target_sum / np.where(depth > 0, depth, 1.0)))


def pearson_delta(predicted: ArrayLike, truth: ArrayLike, reference: ArrayLike) -> float:
    """Pearson correlation over genes of predicted and true effect, corr(predicted - reference, truth - reference).

    Parameters
    ----------
    predicted, truth, reference
        Profiles (genes,), log1p CP10k. `reference` is the control profile of the context; the mean perturbed profile in
        its place gives the correlation of what is specific to the perturbation (Vinas Torne et al. 2025, Systema).

    Returns
    -------
    A number in [-1, 1]. A prediction without any effect explains nothing and scores 0 by definition.

    Raises
    ------
    DataError
        If the genes differ, or the truth has no effect to correlate with.
    """
    p, t, r = profile("predicted", predicted), profile("truth", truth), profile("reference", reference)
    same_genes(predicted=p, truth=t, reference=r)
    delta, true_delta = p - r, t - r
    if np.ptp(true_delta) <= _NO_EFFECT:
        raise DataError("The truth has no effect against the reference: its Pearson correlation is not defined.")
    if np.ptp(delta) <= _NO_EFFECT:
        return 0.0
    return float(np.corrcoef(delta, true_delta)[0, 1])


def de_scores(truth: ArrayLike, control: ArrayLike, offset: float = 0.01) -> Array:
    r"""Strength of differential expression per gene, a moderated Welch statistic |mean_t - mean_c| / (se + offset).

    se = sqrt(var_t / n_t + var_c / n_c); the offset keeps genes with next to no variance from the top (Tusher et al.
    2001, SAM).

    Parameters
    ----------
    truth, control
        log1p CP10k of real perturbed and real control cells (cells, genes), never of predicted ones: the weights and
        the selected genes must not depend on the prediction.
    offset
        Added to the standard error, in log1p CP10k; positive.

    Returns
    -------
    Scores >= 0, (genes,).

    Raises
    ------
    DataError
        If a group has fewer than two cells, the genes differ, or `offset` is not positive.
    """
    if not offset > 0:
        raise DataError(f"offset is {offset}; it must be positive.")
    t, c = cell_values("truth", truth, min_cells=2), cell_values("control", control, min_cells=2)
    same_genes(truth=t, control=c)
    error = np.sqrt(t.var(axis=0, ddof=1) / len(t) + c.var(axis=0, ddof=1) / len(c))
    return np.abs(t.mean(axis=0) - c.mean(axis=0)) / (error + offset)


def top_genes(scores: ArrayLike, n_top: int = 50) -> NDArray[np.intp]:
    """Indices of the `n_top` genes of highest score, or of all if there are fewer; best first, ties in gene order."""
    if n_top < 2:
        raise DataError(f"n_top is {n_top}; at least two genes are needed.")
    return np.argsort(-profile("scores", scores), kind="stable")[:n_top]


def pearson_delta_top(
    predicted: ArrayLike, truth: ArrayLike, reference: ArrayLike, scores: ArrayLike, n_top: int = 50
) -> float:
    """`pearson_delta` over the `n_top` genes of highest `scores` (see `de_scores`), all of them (genes,)."""
    s = profile("scores", scores)
    p, t, r = profile("predicted", predicted), profile("truth", truth), profile("reference", reference)
    same_genes(predicted=p, truth=t, reference=r, scores=s)
    genes = top_genes(s, n_top)
    return pearson_delta(p[genes], t[genes], r[genes])


def r2_of_means(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Coefficient of determination of the profile (genes,), 1 - |truth - predicted|^2 / |truth - mean(truth)|^2.

    "No change" scores high, for most genes do not respond: never report it alone.
    """
    p, t = profile("predicted", predicted), profile("truth", truth)
    same_genes(predicted=p, truth=t)
    total = float(((t - t.mean()) ** 2).sum())
    if total == 0:
        raise DataError("The truth is the same in all genes: R2 is not defined.")
    return 1.0 - float(((t - p) ** 2).sum()) / total


def score_weights(scores: ArrayLike) -> Array:
    """Weights of genes from their DE scores, ((s - min s) / (max s - min s))^2 scaled to sum 1.

    Parameters
    ----------
    scores
        Scores >= 0 (genes,), from real cells only; see `de_scores`.

    Raises
    ------
    DataError
        If all scores are equal.

    Notes
    -----
    Mejia et al. 2025, arXiv 2506.22641, with the statistic of `de_scores` in place of theirs.
    """
    s = profile("scores", scores)
    span = s.max() - s.min()
    if span <= 0:
        raise DataError("All DE scores are equal: there are no weights to take from them.")
    weights = ((s - s.min()) / span) ** 2
    return weights / weights.sum()


def weighted_mse(predicted: ArrayLike, truth: ArrayLike, scores: ArrayLike) -> float:
    """Weighted mean squared error of the profile, sum_g w_g (predicted - truth)^2, w = `score_weights`; (genes,)."""
    p, t, w = profile("predicted", predicted), profile("truth", truth), score_weights(scores)
    same_genes(predicted=p, truth=t, scores=w)
    return float((w * (p - t) ** 2).sum())


def weighted_r2(predicted: ArrayLike, truth: ArrayLike, reference: ArrayLike, scores: ArrayLike) -> float:
    """Weighted R2 of the effect, 1 - sum w (delta^ - delta)^2 / sum w (delta - sum w delta)^2, w = `score_weights`.

    All arguments are (genes,), as for `pearson_delta_top`.
    """
    t, r, w = profile("truth", truth), profile("reference", reference), score_weights(scores)
    error = weighted_mse(predicted, t, scores)
    same_genes(truth=t, reference=r, scores=w)
    delta = t - r
    total = float((w * (delta - (w * delta).sum()) ** 2).sum())
    if total == 0:
        raise DataError("The true effect is the same in all weighted genes: R2 is not defined.")
    return 1.0 - error / total
