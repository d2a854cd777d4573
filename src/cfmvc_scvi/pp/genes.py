"""Choice of genes on training cells, with the genes that perturbations change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.data import Vocabulary, check_counts, check_labels, check_names
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift.pseudobulk import pseudo_bulk

__all__ = ["select_genes"]

_MIN_CELLS = 5  # fewer cells of a condition in a context say little about any single gene


def select_genes(
    adata: AnnData,
    n_genes: int = 2000,
    *,
    mask: ArrayLike | None = None,
    perturbation_key: str = "perturbation",
    context_key: str | None = None,
    control: str = "control",
    layer: str | None = None,
    batch_key: str | None = None,
    changed_share: float = 0.25,
    keep: Sequence[str] = (),
) -> pd.Index:
    """Choose genes on training cells: targets of perturbations, what perturbations change most, and the most variable.

    Variable genes alone miss what a rare or weak perturbation changes, and genes chosen on held-out cells tell of their
    answer. First come `keep` and the genes whose names are perturbations (targets of a CRISPR screen); then
    `changed_share` of `n_genes` by the largest |difference of mean log1p CP10k| over its standard error, between a
    condition and control within a context; then the genes of highest variance of Pearson residuals.

    Reads `obs` `perturbation_key`, `context_key` and `batch_key`, and counts. Nothing is written; use
    ``adata[:, genes]``.

    Parameters
    ----------
    adata
        Cells with raw counts.
    n_genes
        Number of genes to choose.
    mask
        Training cells, (cells,), boolean; see `leave_out`. None: all cells.
    perturbation_key
        Column of `obs` with the conditions.
    context_key
        Column of `obs` within which a condition is compared with control, for example the cell type. None: over all
        cells.
    control
        Label of unperturbed cells.
    layer
        Layer with the counts. None: X.
    batch_key
        Column of `obs` within whose groups the residuals are taken, their variances averaged. None: over all cells.
    changed_share
        Share of `n_genes` for the most changed genes, 0 to 1.
    keep
        Genes to keep whatever their counts.

    Returns
    -------
    Names of `n_genes` genes in the order of `adata`, or of all if there are no more.

    Raises
    ------
    UnknownConditionError
        If a column or the layer is not in the data.
    DataError
        If counts are not counts, `n_genes`, `mask` or `changed_share` is impossible, genes of `keep` are not in the
        data, or more genes must be kept than chosen.

    References
    ----------
    Residuals: Lause, Berens and Kobak, Genome Biol 22, 258 (2021), by scanpy.
    """
    check_names(adata)
    if n_genes < 1:
        raise DataError(f"n_genes must be at least 1, got {n_genes}")
    if not 0 <= changed_share <= 1:
        raise DataError(f"changed_share must be between 0 and 1, got {changed_share}")
    train = adata[_mask(adata, mask)]
    check_counts(train, layer)
    labels = check_labels(train.obs, perturbation_key, "perturbation")
    vocabulary = Vocabulary.from_labels(labels, control)
    chosen = _kept(adata, vocabulary, keep)
    if chosen.sum() > n_genes:
        raise DataError(f"{chosen.sum()} genes are to be kept but only {n_genes} chosen; raise n_genes")
    change = _change(train, labels.map(vocabulary.canonical).to_numpy(), context_key, control, layer)
    _fill(chosen, change, min(n_genes, int(chosen.sum()) + round(changed_share * n_genes)))
    _fill(chosen, _variability(train, layer, batch_key), n_genes)
    return adata.var_names[chosen]


def _mask(adata: AnnData, mask: ArrayLike | None) -> NDArray[np.bool_]:
    train = np.ones(adata.n_obs, dtype=bool) if mask is None else np.asarray(mask)
    if train.dtype != bool or train.shape != (adata.n_obs,):
        raise DataError(
            f"mask must be boolean with one value per cell ({adata.n_obs},), got {train.dtype} of shape {train.shape}"
        )
    return train


def _kept(adata: AnnData, vocabulary: Vocabulary, keep: Sequence[str]) -> NDArray[np.bool_]:
    absent = sorted(set(keep) - set(adata.var_names))
    if absent:
        raise DataError(
            f"{len(absent)} genes to keep are not in the data, first '{absent[0]}'; check the kind of names"
        )
    return adata.var_names.isin([*keep, *vocabulary.perturbations])


def _fill(chosen: NDArray[np.bool_], score: NDArray[np.float64], n_genes: int) -> None:
    """Add the genes of highest score to `chosen`, in place, until there are `n_genes`."""
    order = np.argsort(np.where(chosen, -np.inf, score), kind="stable")[::-1]
    missing = min(n_genes, len(chosen)) - int(chosen.sum())
    chosen[order[:missing]] = True


def _change(
    train: AnnData, labels: NDArray[np.object_], context_key: str | None, control: str, layer: str | None
) -> NDArray[np.float64]:
    """Largest |z| of a gene over conditions and contexts, 0 where no condition can be compared, (genes,)."""
    counts = train.X if layer is None else train.layers[layer]
    if context_key is None:
        contexts = np.zeros(train.n_obs)
    else:
        contexts = check_labels(train.obs, context_key, "context").to_numpy()
    score = np.zeros(train.n_vars)
    for context in pd.unique(contexts):
        inside = np.flatnonzero(contexts == context)
        codes, names = pd.factorize(labels[inside])
        bulk = pseudo_bulk(counts[inside], codes, len(names))
        enough = bulk.n_cells >= _MIN_CELLS
        reference = np.flatnonzero((names == control) & enough)
        if not len(reference):
            continue
        compared = np.flatnonzero((names != control) & enough)
        z = bulk.log_mean[compared] - bulk.log_mean[reference]
        z /= np.sqrt(bulk.log_noise[compared] + bulk.log_noise[reference])
        score = np.max([score, *np.abs(z)], axis=0)
    return score


def _variability(train: AnnData, layer: str | None, batch_key: str | None) -> NDArray[np.float64]:
    """Variance of the Pearson residuals of a gene, (genes,)."""
    obs = pd.DataFrame(index=train.obs_names)
    if batch_key is not None:
        obs[batch_key] = check_labels(train.obs, batch_key, "batch")
    counts = AnnData(train.X if layer is None else train.layers[layer], obs=obs)
    table = sc.experimental.pp.highly_variable_genes(
        counts, n_top_genes=counts.n_vars, batch_key=batch_key, check_values=False, inplace=False
    )
    return table["residual_variances"].to_numpy()
