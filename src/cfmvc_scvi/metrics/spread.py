"""How cells differ around their mean: variances, zeros, and correlations between genes."""

from __future__ import annotations

__all__ = ["correlation_structure", "variance_log_ratio", "zero_share"]

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values, gene_indices, same_genes


def variance_log_ratio(predicted: ArrayLike, truth: ArrayLike, genes: ArrayLike, offset: float = 1e-3) -> float:
    """Median over genes of log2 of predicted over true variance between cells; 0 is right, -1 half the variance.

    Parameters
    ----------
    predicted, truth
        log1p CP10k (cells, all genes).
    genes
        Indices of the genes that count, usually the 50 of highest `de_scores` of the truth.
    offset
        Added to both variances, so that a gene silent on one side has a finite ratio.

    Raises
    ------
    DataError
        If a group has fewer than two cells, the genes differ, or `offset` is not positive.
    """
    if not offset > 0:
        raise DataError(f"offset is {offset}; it must be positive.")
    p, t = cell_values("predicted", predicted, min_cells=2), cell_values("truth", truth, min_cells=2)
    same_genes(predicted=p, truth=t)
    index = gene_indices(genes, p.shape[1])
    ratio = (p[:, index].var(axis=0, ddof=1) + offset) / (t[:, index].var(axis=0, ddof=1) + offset)
    return float(np.median(np.log2(ratio)))


def zero_share(values: Any) -> float:
    """Share of entries (cells, genes) that are exactly zero; counts and their log1p CP10k have the same."""
    entries = values if sp.issparse(values) else sp.csr_matrix(cell_values("values", values))
    n_entries = int(np.prod(entries.shape))
    return float((n_entries - entries.count_nonzero()) / n_entries)


def _gene_correlations(values: Array) -> Array:
    return np.asarray(np.corrcoef(values, rowvar=False))[np.triu_indices(values.shape[1], k=1)]


def correlation_structure(predicted: ArrayLike, truth: ArrayLike, genes: ArrayLike) -> float:
    """Agreement of gene-gene correlations, corr(upper(C_predicted), upper(C_truth)), over genes that vary in both.

    Noise of the truth lowers it: compare with what one half of the real cells reaches against the other.

    Parameters
    ----------
    predicted, truth
        log1p CP10k (cells, all genes).
    genes
        Indices of the genes that count.

    Returns
    -------
    A number in [-1, 1]; NaN, not defined, if fewer than three genes vary on both sides or one side's correlations are
    all equal.

    Raises
    ------
    DataError
        If a group has fewer than three cells, or the genes differ.
    """
    p, t = cell_values("predicted", predicted, min_cells=3), cell_values("truth", truth, min_cells=3)
    same_genes(predicted=p, truth=t)
    index = gene_indices(genes, p.shape[1])
    index = index[(np.ptp(p[:, index], axis=0) > 0) & (np.ptp(t[:, index], axis=0) > 0)]
    if index.size < 3:
        return float("nan")
    of_predicted, of_truth = _gene_correlations(p[:, index]), _gene_correlations(t[:, index])
    if min(of_predicted.std(), of_truth.std()) <= 1e-10:
        return float("nan")
    return float(np.corrcoef(of_predicted, of_truth)[0, 1])
