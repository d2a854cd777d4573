"""Whether the two latents keep to what each is for."""

from __future__ import annotations

__all__ = ["disentanglement"]

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import hsic, latent_auc, mutual_information_gap
from cfmvc_scvi.model import CFMVC

_LEAST = 10  # cells of a label


def disentanglement(adata: AnnData, model: CFMVC, *, n_cells: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Report what each latent knows of perturbation and batch.

    The technical latent is held fixed by every counterfactual, so what it knows of the perturbation is lost from
    effects; the intrinsic one should know the perturbation, and not the batch. Latents are centred within the cell type
    first.

    Parameters
    ----------
    adata
        Cells with the registered columns.
    model
        A trained model with perturbations or batches.
    n_cells
        At most so many cells are looked at, drawn at random; those of labels with fewer than ten are left out.
    seed
        Draws cells, folds and permutations.

    Returns
    -------
    One row per latent (``intrinsic``, ``technical``) and factor (``perturbation``, ``batch``): ``wanted``, whether the
    latent should know it (None: the technical latent may know the batch, it is made of it); ``auc``
    (`metrics.latent_auc`, .5 is nothing), ``mig`` (`metrics.mutual_information_gap`), ``hsic`` and ``p_value``
    (`metrics.hsic`), ``n_cells``.

    Raises
    ------
    NotTrainedError
        If the representation is not trained.
    DataError
        If there are fewer than two perturbations and fewer than two batches of ten cells, or `n_cells` is too small.

    Examples
    --------
    >>> table = cfmvc_scvi.tl.disentanglement(adata, model)
    >>> table.loc[table["wanted"] == False, ["latent", "factor"]].agg(" / ".join, axis=1).tolist()
    ['intrinsic / batch', 'technical / perturbation']
    """
    if n_cells < 2 * _LEAST:
        raise DataError(f"n_cells is {n_cells}; look at {2 * _LEAST} or more.")
    rng = np.random.default_rng(seed)
    rows = []
    columns = {factor: model._column(adata, f"{factor}_key") for factor in ("perturbation", "batch")}
    labels = model._column(adata, "labels_key")
    types = np.zeros(adata.n_obs) if labels is None else pd.factorize(labels)[0]
    for part in ("intrinsic", "technical"):
        latent = np.asarray(model.get_latent_representation(adata, part=part), dtype=float)
        latent = latent - pd.DataFrame(latent).groupby(types).transform("mean").to_numpy()
        for factor, column in columns.items():
            names = None if column is None else column.astype(str).to_numpy()
            chosen = _chosen(names, n_cells, np.random.default_rng(seed))
            if names is None or chosen is None or not latent.shape[1]:
                continue
            values, label = latent[chosen], names[chosen]
            independence, p_value = hsic(values, label, rng)
            scores = {"auc": latent_auc(values, label, rng), "mig": mutual_information_gap(values, label, rng)}
            wanted = {("intrinsic", "perturbation"): True, ("technical", "batch"): None}.get((part, factor), False)
            row = {"latent": part, "factor": factor, "wanted": wanted, **scores}
            rows.append({**row, "hsic": independence, "p_value": p_value, "n_cells": len(chosen)})
    if not rows:
        raise DataError(f"Neither perturbations nor batches have two labels of {_LEAST} cells or more.")
    return pd.DataFrame(rows)


def _chosen(names: NDArray[np.str_] | None, n_cells: int, rng: np.random.Generator) -> NDArray[np.intp] | None:
    """Return random cells of labels that have enough of them; None if there are not two."""
    if names is None:
        return None
    chosen = np.sort(rng.permutation(len(names))[:n_cells])
    kinds, code = np.unique(names[chosen], return_inverse=True)
    size = np.bincount(code)
    return chosen[size[code] >= _LEAST] if (size >= _LEAST).sum() > 1 else None
