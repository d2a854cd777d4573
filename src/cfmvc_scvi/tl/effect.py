"""The expected effect of a perturbation on each gene in each context, with its uncertainty."""

from __future__ import annotations

from anndata import AnnData

from cfmvc_scvi.model import CFMVC

__all__ = ["effect"]


def effect(
    adata: AnnData, model: CFMVC, perturbation: str, *, dose: float | None = None, key_added: str = "effect"
) -> None:
    r"""Write the expected change of each gene, in each context, into `adata.uns`.

    :math:`\Delta = E[\log(1 + CP10k)]` under the perturbation minus that of control cells: the empirical-Bayes estimate
    over contexts that the counterfactual counts are matched to.

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
    None. Writes `adata.uns[key_added]`, a data frame with columns ``context``, ``gene``, ``control``, ``delta``, ``sd``
    (posterior standard deviation), ``observed`` (whether the context was seen under the perturbation), ``low`` and
    ``high`` (90 % interval of the measured delta, see `CFMVC.get_effect`), sorted by context and decreasing |delta|.

    Raises
    ------
    NotTrainedError
        If the model is not trained.
    UnknownConditionError
        If the perturbation is unknown.
    """
    model._rna(adata).uns[key_added] = model.get_effect(perturbation, dose=dose)
