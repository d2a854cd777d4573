"""Counterfactual cells into layers of the data."""

from __future__ import annotations

from typing import Any

from anndata import AnnData

from cfmvc_scvi.model import CFMVC

__all__ = ["counterfactual"]


def counterfactual(
    adata: AnnData, model: CFMVC, perturbation: str, *, key_added: str | None = None, **kwargs: Any
) -> None:
    """Write the cells under another perturbation into `adata.layers`.

    Parameters
    ----------
    adata
        Cells with the registered columns.
    model
        A trained model.
    perturbation
        Perturbation, combination (``'A+B'``) or the control category.
    key_added
        Name of the result; None is the perturbation itself.
    **kwargs
        Passed to `CFMVC.predict_counterfactual`.

    Returns
    -------
    None. Writes `adata.layers[key]`, `adata.obsm["X_" + key]` and `adata.uns[key]` (provenance).

    Examples
    --------
    >>> cfmvc_scvi.tl.counterfactual(adata, model, "A", seed=0)
    >>> adata.layers["A"].shape == adata.shape
    True
    """
    model.predict_counterfactual(adata, perturbation=perturbation, key_added=key_added or perturbation, **kwargs)
