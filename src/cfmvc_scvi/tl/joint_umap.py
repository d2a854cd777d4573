"""Cells of several roles on one map."""

from __future__ import annotations

__all__ = ["joint_umap"]

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from sklearn.decomposition import PCA

from cfmvc_scvi.data import match_genes
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import log_normalize

_N_COMPONENTS, _N_NEIGHBOURS = 30, 15


def joint_umap(cells: Mapping[str, AnnData], *, n_cells: int | None = None, seed: int = 0) -> AnnData:
    """Lay out control, true and predicted cells on one UMAP, so that a prediction lies where real cells would.

    The UMAP is of a PCA of log1p CP10k that is fitted to all cells but the predicted ones: what is predicted has no say
    in the axes it is looked at along.

    Parameters
    ----------
    cells
        Role of some cells, for example ``"control"``, ``"true"``, ``"predicted"``, to the cells, with counts in X.
        Genes are matched by name to those of the first.
    n_cells
        Cells of each role, at most; None takes all.
    seed
        Draws the cells. PCA and UMAP have fixed seeds.

    Returns
    -------
    AnnData of all cells without counts: ``obs["role"]``, the other columns of `obs`, ``obsm["X_pca"]`` and
    ``obsm["X_umap"]``. Draw it by ``pl.embedding(joint.obsm["X_umap"], joint.obs["role"])``.

    Raises
    ------
    DataError
        If fewer than four cells are not predicted, or genes are missing.

    Examples
    --------
    >>> joint = cfmvc_scvi.tl.joint_umap({"control": control, "true": real, "predicted": treated})
    >>> ax = cfmvc_scvi.pl.embedding(joint.obsm["X_umap"], joint.obs["role"])
    """
    rng = np.random.default_rng(seed)
    genes, values, frames = None, [], []
    for role, part in cells.items():
        genes = np.asarray(part.var_names, dtype=str) if genes is None else genes
        chosen = match_genes(part, genes)
        if n_cells is not None and chosen.n_obs > n_cells:
            chosen = chosen[np.sort(rng.permutation(chosen.n_obs)[:n_cells])]
        values.append(log_normalize(chosen.X).astype(np.float32))
        frames.append(chosen.obs.assign(role=role))
    obs = pd.concat(frames) if frames else pd.DataFrame({"role": []})
    real = (obs["role"] != "predicted").to_numpy()
    if real.sum() < 4:
        raise DataError(f"{int(real.sum())} cells are not predicted; a map needs at least four.")
    matrix = np.vstack(values)
    n_components = min(_N_COMPONENTS, int(real.sum()) - 1, matrix.shape[1] - 1)
    pca = PCA(n_components, svd_solver="randomized", random_state=0).fit(matrix[real])
    obs.index = pd.Index([f"{role}_{name}" for role, name in zip(obs["role"], obs.index, strict=True)])
    obs["role"] = pd.Categorical(obs["role"], categories=list(cells))
    joint = AnnData(obs=obs, obsm={"X_pca": pca.transform(matrix)})
    sc.pp.neighbors(joint, n_neighbors=min(_N_NEIGHBOURS, joint.n_obs - 1), use_rep="X_pca", random_state=0)
    sc.tl.umap(joint, random_state=0)
    return joint
