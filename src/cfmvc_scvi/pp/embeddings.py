"""Features of perturbation targets from how their genes vary among control cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cfmvc_scvi.data import check_counts, check_labels, check_names
from cfmvc_scvi.errors import DataError

__all__ = ["gene_embeddings"]


def gene_embeddings(
    adata: AnnData,
    genes: Sequence[str],
    *,
    n_components: int = 20,
    perturbation_key: str = "perturbation",
    context_key: str | None = None,
    control: str = "control",
    layer: str | None = None,
) -> pd.DataFrame:
    r"""Describe genes by their co-expression with all genes among control cells.

    The correlation matrix of log1p CP10k over control cells, each context centred, is :math:`U \Lambda U^T`; a gene's
    features are its row of the leading columns of :math:`U \Lambda`. Two genes are as near as their profiles of
    correlation with all genes. Only control cells are read, so nothing leaks from perturbed cells that are held out.

    Reads `obs` `perturbation_key` and `context_key`, and counts. Nothing is written; store the table in `adata.uns`
    and name it by `perturbation_embeddings_key` of `CFMVC.setup_anndata`.

    Parameters
    ----------
    adata
        Cells with raw counts.
    genes
        Targets of perturbations, those without cells among them.
    n_components
        Most features; fewer if there are fewer genes or cells.
    perturbation_key
        Column of `obs` with the conditions.
    context_key
        Column of `obs` within whose groups cells are compared, for example the cell type or the replicate. None: all.
    control
        Label of unperturbed cells.
    layer
        Layer with the counts. None: X.

    Returns
    -------
    DataFrame (genes, components). A gene that was not measured, or does not vary, has a row of NaN: it can be asked
    for, and is predicted to do what others lead to expect.

    Raises
    ------
    UnknownConditionError
        If a column or the layer is not in the data.
    DataError
        If counts are not counts, a gene is named twice, there are fewer than three control cells, or no gene was
        measured.

    Notes
    -----
    Deterministic: each component has its largest entry positive. Cost: a dense matrix of control cells x genes, and its
    singular value decomposition.
    """
    check_names(adata)
    names = [str(gene) for gene in genes]
    if len(set(names)) < len(names):
        raise DataError(f"{len(names) - len(set(names))} genes are named twice; name each once")
    if n_components < 1:
        raise DataError(f"n_components must be at least 1, got {n_components}")
    cells = adata[(check_labels(adata.obs, perturbation_key, "perturbation") == control).to_numpy()]
    if cells.n_obs < 3:
        raise DataError(
            f"{cells.n_obs} cells of obs[{perturbation_key!r}] are {control!r}; co-expression needs control cells"
        )
    check_counts(cells, layer)
    place = cells.var_names.get_indexer(names)
    if (place < 0).all():
        raise DataError(
            f"none of the {len(names)} genes is in var_names, first {names[0]!r}; co-expression says nothing of them. "
            "Use the same kind of names, keep the targets when genes are chosen, or bring other features"
        )
    values = _standardised(cells, context_key, layer)
    _, singular, axes = np.linalg.svd(values, full_matrices=False)
    n = min(n_components, len(singular))
    components = axes[:n].T * singular[:n] ** 2 / len(values)
    largest = components[np.abs(components).argmax(axis=0), np.arange(n)]
    components *= np.where(largest < 0, -1.0, 1.0)
    known = (place >= 0) & (values[:, place] != 0).any(axis=0)
    table = np.where(known[:, None], components[place], np.nan)
    return pd.DataFrame(table, index=names, columns=[f"coexpression_{i + 1}" for i in range(n)])


def _standardised(cells: AnnData, context_key: str | None, layer: str | None) -> np.ndarray:
    """log1p CP10k of unit variance (cells, genes), each context centred; genes that do not vary are zero."""
    counts = sp.csr_matrix(cells.X if layer is None else cells.layers[layer], dtype=np.float64)
    depth = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    values = (sp.diags(1e4 / depth) @ counts).log1p().toarray()
    contexts = (
        np.zeros(len(values)) if context_key is None else check_labels(cells.obs, context_key, "context").to_numpy()
    )
    for context in pd.unique(contexts):
        values[contexts == context] -= values[contexts == context].mean(axis=0)
    spread = values.std(axis=0)
    varies = spread > 1e-9
    values[:, varies] /= spread[varies]
    values[:, ~varies] = 0.0
    return values
