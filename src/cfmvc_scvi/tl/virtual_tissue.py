"""A tissue of which a region is perturbed."""

from __future__ import annotations

__all__ = ["virtual_tissue"]

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from matplotlib.path import Path
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeWarning, curve_fit

from cfmvc_scvi.data import check_key
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import log_normalize
from cfmvc_scvi.model import CFMVC
from cfmvc_scvi.model.niche import neighbour_weights
from cfmvc_scvi.shift import NicheResponse, distance_to_region

Array = NDArray[np.float64]

STATES = ("region", "responding", "unchanged")
_RESPONDING = 0.1  # of the median response in the region
_N_BINS, _N_GENES, _N_PERMUTATIONS = 12, 20, 200


def virtual_tissue(
    adata: AnnData,
    model: CFMVC,
    perturbation: str,
    region: ArrayLike | str,
    *,
    hops: int = 0,
    steps: int = 20,
    niche: NicheResponse | None = None,
    key_added: str = "virtual_tissue",
    seed: int = 0,
    **kwargs: Any,
) -> None:
    """Perturb a region of a tissue, let its neighbours follow, and write cells and a report into the data.

    See `CFMVC.predict_tissue` for how the change spreads, and what it rests on.

    Parameters
    ----------
    adata
        A tissue with the registered columns and coordinates; of a MuData the RNA modality is read and written.
    model
        A trained model with coordinates.
    perturbation
        Perturbation, combination or the control category.
    region
        Which cells are perturbed: a mask (cells,), the name of a boolean column of `obs`, or the corners of a polygon
        (corners, 2) in the unit of the coordinates.
    hops
        The region grows by so many steps to the 15 nearest neighbours.
    steps, niche, seed
        As in `CFMVC.predict_tissue`.
    key_added
        Name of the results.
    **kwargs
        Passed to `CFMVC.predict_tissue`: ``dose``, ``strength`` and so on.

    Returns
    -------
    None. Writes `adata.layers[key]` (counts); `adata.obsm["X_" + key]` (latents after); `adata.obs[key]` (response: how
    far the latent moved), ``key_state`` (``region``; ``responding``, more than a tenth of the region's median;
    ``unchanged``) and ``key_distance`` (to the nearest cell of the region in the same batch, in the unit of the
    coordinates; NaN where there is none). `adata.uns[key]`: ``by_distance`` (mean response, and number of cells, in
    bins of equal numbers outside the region), ``decay_length`` (of an exponential through the responses outside; NaN
    where nothing responds), ``moran`` (Moran's I of log1p CP10k of the twenty genes that change most, before and
    after), ``enrichment`` (z-scores of how often states neighbour each other, against permutations) and ``provenance``.

    Raises
    ------
    NotTrainedError, UnknownConditionError, NonFiniteError
        As of `CFMVC.predict_tissue`.
    DataError
        If the region is no region or empty, `adata` is a view, or an argument cannot be used.

    Examples
    --------
    >>> corners = [(0, 0), (12, 0), (12, 8), (0, 8)]
    >>> cfmvc_scvi.tl.virtual_tissue(adata, model, "A", corners)
    >>> ax = cfmvc_scvi.pl.tissue(adata.obsm["spatial"], adata.obs["virtual_tissue"], label="response")
    """
    key = model._setup_argument("spatial_key")
    if key is None:
        raise DataError("No coordinates are registered; pass spatial_key= to setup_anndata and train.")
    if adata.is_view:
        raise DataError("Results cannot be written into a view; pass adata.copy().")
    if hops < 0:
        raise DataError(f"hops is {hops}; pass 0 or more.")
    holder, rna = model._holder(adata, "spatial_key"), model._rna(adata)
    check_key(key, holder.obsm.keys(), "obsm")
    place, batch = np.asarray(holder.obsm[key], dtype=float), model._column(adata, "batch_key")
    slices = np.zeros(adata.n_obs, dtype=int) if batch is None else pd.factorize(batch)[0]
    pool = neighbour_weights(place, slices)
    held = _mask(rna, region, place)
    for _ in range(hops):
        held = held | (pool.T @ held > 0)
    result = model.predict_tissue(adata, held, perturbation=perturbation, steps=steps, niche=niche, seed=seed, **kwargs)
    before, after = (result.obsm[name].astype(float) for name in ("X_cfmvc", "X_cfmvc_counterfactual"))
    response = np.linalg.norm(after - before, axis=1)
    distance = distance_to_region(held, place, slices)
    responding = response > _RESPONDING * np.median(response[held])
    state = np.where(held, STATES[0], np.where(responding, STATES[1], STATES[2]))
    genes = pd.Index(result.var_names).get_indexer(rna.var_names)
    if (genes < 0).any():
        raise DataError(f"{(genes < 0).sum()} genes of the data are not of the model; subset them first.")
    counts = sp.csr_matrix(rna.X if model._layer is None else rna.layers[model._layer])
    rna.layers[key_added] = sp.csr_matrix(result.X)[:, genes]
    rna.obsm[f"X_{key_added}"] = after.astype(np.float32)
    rna.obs[key_added] = response
    rna.obs[f"{key_added}_state"] = pd.Categorical(state, categories=list(STATES))
    rna.obs[f"{key_added}_distance"] = distance
    outside = ~held & np.isfinite(distance)
    rna.uns[key_added] = {
        "by_distance": _by_distance(distance[outside], response[outside]),
        "decay_length": _decay_length(distance[outside], response[outside]),
        "moran": _moran(counts, rna.layers[key_added], pool, rna.var_names),
        "enrichment": _enrichment(state, pool, np.random.default_rng(seed)),
        "provenance": result.uns["cfmvc"],
    }


def _mask(adata: AnnData, region: ArrayLike | str, place: Array) -> NDArray[np.bool_]:
    if isinstance(region, str):
        check_key(region, adata.obs.columns, "adata.obs")
        region = adata.obs[region].to_numpy()
    given = np.asarray(region)
    if given.dtype == bool and given.shape == (adata.n_obs,):
        mask = given
    elif given.ndim == 2 and given.shape[1] == 2 and len(given) >= 3 and given.dtype.kind in "iuf":
        if place.shape[1] != 2:
            raise DataError(f"a polygon needs two coordinates, and there are {place.shape[1]}; pass a mask.")
        mask = Path(given.astype(float)).contains_points(place)
    else:
        raise DataError(
            f"region has shape {given.shape} and type {given.dtype}; pass a boolean mask of {adata.n_obs} cells, a "
            "boolean column of obs, or at least three corners of a polygon (corners, 2)."
        )
    if not mask.any():
        raise DataError("There is no cell in the region.")
    return np.asarray(mask, dtype=bool)


def _by_distance(distance: Array, response: Array) -> pd.DataFrame:
    n_bins = min(_N_BINS, len(distance))
    bins = np.array_split(np.argsort(distance, kind="stable"), n_bins) if n_bins else []
    return pd.DataFrame(
        [{"distance": distance[rows].mean(), "response": response[rows].mean(), "n_cells": len(rows)} for rows in bins],
        columns=["distance", "response", "n_cells"],
    )


def _decay_length(distance: Array, response: Array) -> float:
    """Length l of a exp(-distance / l), by least squares; NaN where nothing responds."""
    if len(distance) < 3 or not response.max() > 0:
        return float("nan")
    spread = float(distance.max())
    start = (float(response.max()), spread / 10)
    try:
        found = curve_fit(
            lambda x, a, l: a * np.exp(-x / l), distance, response, start, bounds=(0, [np.inf, 10 * spread])
        )
    except (RuntimeError, OptimizeWarning):
        return float("nan")
    return float(found[0][1])


def _moran(before: sp.csr_matrix, after: sp.csr_matrix, pool: sp.csr_matrix, names: pd.Index) -> pd.DataFrame:
    """Moran's I, sum_ij w_ij x_i x_j / sum_i x_i^2 weights summing to 1 by row, of the genes that change most."""
    logs = [log_normalize(counts) for counts in (before, after)]
    change = np.abs(logs[1].mean(axis=0) - logs[0].mean(axis=0))
    genes = np.argsort(-change, kind="stable")[:_N_GENES]
    values = []
    for log in logs:
        x = log[:, genes] - log[:, genes].mean(axis=0)
        total = (x**2).sum(axis=0)
        values.append((x * (pool @ x)).sum(axis=0) / np.where(total > 0, total, np.nan))
    return pd.DataFrame({"gene": names[genes].astype(str), "before": values[0], "after": values[1]})


def _enrichment(state: NDArray[np.str_], pool: sp.csr_matrix, rng: Generator) -> pd.DataFrame:
    """z-scores of the neighbours of each state, row by column, against permuted states; NaN for states of no cell."""
    members = np.stack([state == name for name in STATES], axis=1).astype(float)

    def pairs(order: NDArray[np.intp]) -> Array:
        return members[order].T @ (pool @ members[order])

    chance = np.stack([pairs(rng.permutation(len(state))) for _ in range(_N_PERMUTATIONS)])
    sd = chance.std(axis=0)
    z = (pairs(np.arange(len(state))) - chance.mean(axis=0)) / np.where(sd > 0, sd, np.nan)
    return pd.DataFrame(z, index=list(STATES), columns=list(STATES))
