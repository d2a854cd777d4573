"""Latents into `adata.obsm`."""

from __future__ import annotations

from anndata import AnnData

from cfmvc_scvi.model import CFMVC

__all__ = ["latent"]


def latent(adata: AnnData, model: CFMVC, *, key_added: str = "X_cfmvc", technical: bool = False) -> None:
    """Write the intrinsic latent of each cell into `adata.obsm`.

    Parameters
    ----------
    adata
        Cells with the registered columns.
    model
        A trained model.
    key_added
        Key in `adata.obsm`.
    technical
        Also write the technical latent, under `key_added` + ``"_technical"``.

    Returns
    -------
    None. Writes `adata.obsm[key_added]`, `(cells, n_intrinsic)`.

    Examples
    --------
    >>> cfmvc_scvi.tl.latent(adata, model)
    >>> adata.obsm["X_cfmvc"].shape == (adata.n_obs, 32)
    True
    """
    obsm = model._rna(adata).obsm
    obsm[key_added] = model.get_latent_representation(adata)
    if technical:
        obsm[f"{key_added}_technical"] = model.get_latent_representation(adata, part="technical")
