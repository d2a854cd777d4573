"""How far the expected effect of a perturbation can be relied on, in each context."""

from __future__ import annotations

from anndata import AnnData

from cfmvc_scvi.model import CFMVC

__all__ = ["trust"]


def trust(
    adata: AnnData, model: CFMVC, perturbation: str, *, dose: float | None = None, key_added: str = "trust"
) -> None:
    """Write the expected share of the squared effect that is explained, in each context, into `adata.uns`.

    Parameters
    ----------
    adata
        Data to write into.
    model
        A trained model.
    perturbation
        Perturbation or combination.
    dose
        Dose of each part; None is 1.
    key_added
        Key in `adata.uns`.

    Returns
    -------
    None. Writes `adata.uns[key_added]`, the data frame of `CFMVC.get_trust`.

    Raises
    ------
    NotTrainedError
        If the model is not trained.
    UnknownConditionError
        If the perturbation is unknown.
    """
    model._rna(adata).uns[key_added] = model.get_trust(perturbation, dose=dose)
