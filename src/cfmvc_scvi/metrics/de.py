"""Agreement of differential expression: rank-sum tests of predicted and of real cells against the same control cells.

Definitions follow the Virtual Cell Challenge (cell-eval, cell-eval2) with the differences that each function states.
There is no exclusion of target genes: conditions need not be genes.
"""

from __future__ import annotations

__all__ = [
    "DEResult",
    "auprc_de",
    "de_overlap",
    "direction_fidelity",
    "equal_cells",
    "lfc_nmae",
    "rank_sum_de",
    "sig_jaccard",
]

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, mannwhitneyu
from sklearn.metrics import average_precision_score

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values, same_genes

_FDR = 0.05


@dataclass(frozen=True)
class DEResult:
    """Differential expression of one group of cells against a reference, one entry per gene.

    Parameters
    ----------
    p_adj
        p-values adjusted by Benjamini and Hochberg over all genes (genes,).
    mean, reference_mean
        Mean counts per 10k of the group and of the reference (genes,).
    """

    p_adj: Array
    mean: Array
    reference_mean: Array

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Genes with an adjusted p-value below .05."""
        return self.p_adj < _FDR

    def log2_fold_change(self, pseudocount: float = 1e-9) -> Array:
        """log2 of (mean + pseudocount) / (reference_mean + pseudocount), (genes,); `pseudocount` > 0 in CP10k."""
        if not pseudocount > 0:
            raise DataError(f"pseudocount is {pseudocount}; it must be positive.")
        return np.log2((self.mean + pseudocount) / (self.reference_mean + pseudocount))


def equal_cells(*groups: ArrayLike, rng: Generator) -> list[Array]:
    """Random subsets of groups (cells, genes), all as large as the smallest: power grows with the number of cells."""
    values = [cell_values(f"group {i}", group) for i, group in enumerate(groups)]
    n_cells = min(len(group) for group in values)
    return [group[rng.permutation(len(group))[:n_cells]] for group in values]


def rank_sum_de(cells: ArrayLike, reference: ArrayLike) -> DEResult:
    """Two-sided Wilcoxon rank-sum test of every gene, asymptotic, corrected for ties and continuity, adjusted by BH.

    A gene with one value in all cells of both groups has p = 1: nothing speaks against the null hypothesis.

    Parameters
    ----------
    cells, reference
        log1p CP10k (cells, genes), with equal numbers of cells where results are to be compared (`equal_cells`).

    Raises
    ------
    DataError
        If a group has fewer than two cells, or the genes differ.
    """
    x, y = cell_values("cells", cells, min_cells=2), cell_values("reference", reference, min_cells=2)
    same_genes(cells=x, reference=y)
    p_value = np.ones(x.shape[1])
    varies = np.maximum(x.max(axis=0), y.max(axis=0)) > np.minimum(x.min(axis=0), y.min(axis=0))
    if varies.any():
        p_value[varies] = mannwhitneyu(x[:, varies], y[:, varies], axis=0, method="asymptotic").pvalue
    p_adj = false_discovery_control(np.clip(p_value, 0.0, 1.0))
    return DEResult(p_adj, np.expm1(x).mean(axis=0), np.expm1(y).mean(axis=0))


def _same_tests(predicted: DEResult, truth: DEResult) -> None:
    same_genes(predicted=predicted.p_adj, truth=truth.p_adj)


def de_overlap(predicted: DEResult, truth: DEResult, pseudocount: float = 1e-9) -> float:
    """Share of the k truly significant genes among the k predicted significant genes of largest fold change (DES).

    Fewer than k predicted genes count as they are, so that missing ones are misses; 0 if nothing is truly significant.

    Parameters
    ----------
    predicted, truth
        Tests of the same genes.
    pseudocount
        Of the fold change that ranks predicted genes, counts per 10k; the challenge's 1e-9 puts genes that turn on
        first.
    """
    _same_tests(predicted, truth)
    k = int(truth.significant.sum())
    if k == 0:
        return 0.0
    size = np.where(predicted.significant, np.abs(predicted.log2_fold_change(pseudocount)), -1.0)
    n_called = min(k, int(predicted.significant.sum()))
    top = np.argsort(-size, kind="stable")[:n_called]
    return float(truth.significant[top].sum() / k)


def sig_jaccard(predicted: DEResult, truth: DEResult) -> float:
    """Significant in both over significant in either; 1 if neither side has a significant gene."""
    _same_tests(predicted, truth)
    either = int((predicted.significant | truth.significant).sum())
    return float((predicted.significant & truth.significant).sum() / either) if either else 1.0


def lfc_nmae(predicted: DEResult, truth: DEResult, pseudocount: float = 0.1, min_genes: int = 10) -> float:
    """Normalised error of log2 fold changes, mean |predicted - true| / mean |true| over truly significant genes.

    0 is right, 1 is what "no change" has.

    Parameters
    ----------
    predicted, truth
        Tests of the same genes.
    pseudocount
        Of the fold changes, counts per 10k. The challenge's 1e-9 with a floor on expression is made for thousands of
        cells; in groups of a hundred one gene that happens to be absent would weigh as much as thirty doublings.
    min_genes
        Truly significant genes needed.

    Returns
    -------
    A number >= 0; NaN, not defined, with fewer than `min_genes` truly significant genes, whatever the prediction.
    """
    _same_tests(predicted, truth)
    genes = truth.significant
    true_change = truth.log2_fold_change(pseudocount)[genes]
    if genes.sum() < min_genes or not np.abs(true_change).any():
        return float("nan")
    error = np.abs(predicted.log2_fold_change(pseudocount)[genes] - true_change)
    return float(error.mean() / np.abs(true_change).mean())


def direction_fidelity(predicted: DEResult, truth: DEResult) -> float:
    """Predicted significant genes that change in the true direction, over the larger number of significant genes.

    Calling too many genes is charged as calling too few. The true direction is the sign of the true fold change,
    significant or not; genes without a true change are left out (cell-eval2: direction_fidelity_yield_raw). 1 if
    neither side calls a gene.
    """
    _same_tests(predicted, truth)
    true_sign = np.sign(truth.mean - truth.reference_mean)
    called = predicted.significant & (true_sign != 0)
    n_largest = max(int(called.sum()), int(truth.significant.sum()))
    if n_largest == 0:
        return 1.0
    right = np.sign(predicted.mean - predicted.reference_mean)[called] == true_sign[called]
    return float(right.sum() / n_largest)


def auprc_de(predicted: DEResult, truth: DEResult) -> float:
    """Average precision of the predicted -log10 adjusted p-values for truly significant genes; chance is their share.

    NaN, not defined, if no gene or every gene is truly significant, whatever the prediction.
    """
    _same_tests(predicted, truth)
    if not 0 < truth.significant.sum() < truth.significant.size:
        return float("nan")
    evidence = -np.log10(np.maximum(predicted.p_adj, np.finfo(np.float64).tiny))
    return float(average_precision_score(truth.significant, evidence))
