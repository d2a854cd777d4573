"""Bring the genes of new data into the order of a model's genes, by name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from cfmvc_scvi.data._text import counted, listing
from cfmvc_scvi.data.checks import check_names
from cfmvc_scvi.errors import CFMVCWarning, DataError

__all__ = ["match_genes"]

logger = logging.getLogger(__name__)

# a copy with other genes is a new object to scvi: with the old identifiers it would be taken for the registered one
_REGISTRATION_KEYS = ("_scvi_uuid", "_scvi_manager_uuid")


def match_genes(adata: AnnData, model_var_names: Sequence[str] | pd.Index, pad_missing: bool = False) -> AnnData:
    """Return data with the genes of a model, in its order.

    Parameters
    ----------
    adata
        New cells; never altered.
    model_var_names
        Genes that the model was trained on, in its order.
    pad_missing
        Give genes that the new cells lack zero counts. Annotations of genes (`var`, `varm`, `varp`) and `raw` are
        dropped then.

    Returns
    -------
    `adata` itself if its genes already match, else a copy in memory that scvi takes for unregistered data.

    Raises
    ------
    DataError
        If gene names repeat, no gene is shared, or (without `pad_missing`) genes are missing.

    Warns
    -----
    CFMVCWarning
        If genes were padded.
    """
    wanted = pd.Index(model_var_names, dtype=object)
    own = pd.Index(adata.var_names, dtype=object)
    if own.equals(wanted):
        return adata
    check_names(adata)
    positions = own.get_indexer(wanted)
    missing = wanted[positions < 0]
    if len(missing) == len(wanted):
        raise DataError(
            f"no gene is shared with the model: it has {listing(wanted, 3)}; the data have {listing(own, 3)}. Use the "
            "same kind of names in both (symbols or identifiers) before setup"
        )
    if len(missing) and not pad_missing:
        raise DataError(
            f"{counted(len(missing), 'gene')} of the model not in the data: {listing(missing)}; add them, or pass "
            "pad_missing=True to count them as zero"
        )
    if len(missing):
        warnings.warn(
            f"{counted(len(missing), 'gene')} of the model not in the data, counted as zero: {listing(missing)}; "
            "predictions are less certain, most of all for these genes",
            CFMVCWarning,
            stacklevel=2,
        )
        matched = _padded(adata, wanted, positions)
    else:
        view = adata[:, positions]
        matched = view.to_memory() if adata.isbacked else view.copy()
    n_extra = len(own) - (len(wanted) - len(missing))
    logger.info("reordered genes by name to match the model; %s not of the model left out", counted(n_extra, "gene"))
    for key in _REGISTRATION_KEYS:
        matched.uns.pop(key, None)
    return matched


def _padded(adata: AnnData, wanted: pd.Index, positions: NDArray[np.intp]) -> AnnData:
    source = adata.to_memory() if adata.isbacked else adata
    layers = {key: _take(source.layers[key], positions) for key in source.layers.keys() if key is not None}
    var = pd.DataFrame(index=wanted.tolist())
    x = None if source.X is None else _take(source.X, positions)
    return AnnData(
        X=x,
        obs=source.obs.copy(),
        var=var,
        uns=dict(source.uns),
        obsm=dict(source.obsm),
        obsp=dict(source.obsp),
        layers=layers,
    )


def _take(matrix: Any, positions: NDArray[np.intp]) -> Any:
    """Return columns of a matrix; position -1 is a column of zeros."""
    found = positions >= 0
    if sparse.issparse(matrix):
        coo = matrix.tocsc()[:, positions[found]].tocoo()
        columns = np.flatnonzero(found)[coo.col]
        return sparse.csr_matrix((coo.data, (coo.row, columns)), shape=(matrix.shape[0], len(positions)))
    taken = np.zeros((matrix.shape[0], len(positions)), dtype=matrix.dtype)
    taken[:, found] = np.asarray(matrix)[:, positions[found]]
    return taken
