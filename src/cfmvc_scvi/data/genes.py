"""Bring the genes of new data into the order of a model's genes, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.data.names import check_names, gene_positions, take_genes

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["match_genes", "match_modality"]

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
    positions = gene_positions(own.tolist(), wanted.tolist(), pad_missing)
    if (positions < 0).any():
        matched = _padded(adata, wanted, positions)
    else:
        view = adata[:, positions]
        matched = view.to_memory() if adata.isbacked else view.copy()
    for key in _REGISTRATION_KEYS:
        matched.uns.pop(key, None)
    return matched


def match_modality(mdata: MuData, modality: str, model_var_names: Sequence[str] | pd.Index) -> MuData:
    """Return data of which one modality has the genes of a model, in its order.

    Parameters
    ----------
    mdata
        New cells; never altered.
    modality
        Name of the modality with the counts.
    model_var_names
        Genes that the model was trained on, in its order.

    Returns
    -------
    `mdata` itself if the genes already match, else one that shares the other modalities, for scvi unregistered.

    Raises
    ------
    DataError
        As of `match_genes`.
    """
    import mudata

    matched = match_genes(mdata.mod[modality], model_var_names)
    if matched is mdata.mod[modality]:
        return mdata
    with mudata.set_options(pull_on_update=False):
        result = mudata.MuData({name: matched if name == modality else part for name, part in mdata.mod.items()})
        result.obs = mdata.obs.copy()
    return result


def _padded(adata: AnnData, wanted: pd.Index, positions: NDArray[np.intp]) -> AnnData:
    source = adata.to_memory() if adata.isbacked else adata
    layers = {key: take_genes(source.layers[key], positions) for key in source.layers.keys() if key is not None}
    var = pd.DataFrame(index=wanted.tolist())
    x = None if source.X is None else take_genes(source.X, positions)
    return AnnData(
        X=x,
        obs=source.obs.copy(),
        var=var,
        uns=dict(source.uns),
        obsm=dict(source.obsm),
        obsp=dict(source.obsp),
        layers=layers,
    )
