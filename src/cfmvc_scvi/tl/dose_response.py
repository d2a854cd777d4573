"""Effects over doses: curves, and the dose of half effect."""

from __future__ import annotations

__all__ = ["dose_response"]

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc_scvi.data import check_key
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model import CFMVC
from cfmvc_scvi.shift import HillFit, fit_hill

ALL_GENES = "all genes"
_N_GENES = 20


def dose_response(
    adata: AnnData,
    model: CFMVC,
    perturbation: str,
    *,
    doses: Sequence[float] | None = None,
    genes: Sequence[str] | None = None,
    level: float = 0.9,
    key_added: str = "dose_response",
) -> None:
    """Write expected effects over doses, and the dose of half effect with its interval, into `adata.uns`.

    Effects are those of `CFMVC.get_effect` at each dose: estimated at the doses that were seen, monotone where noise
    explains that they are not, interpolated between, flat beyond. Half doses are posteriors of Hill curves through the
    doses that were seen (`shift.fit_hill`): one of each gene, and one that the genes chosen share, which knows much
    more.

    A time course is asked for in the same way, with the time since perturbation registered as `dose_key`: then ``ec50``
    is the time of half effect. Dose and time at once cannot be registered.

    Parameters
    ----------
    adata
        Data to write into.
    model
        A trained model with doses.
    perturbation
        A single perturbation.
    doses
        Doses of the curves; None is 25 from a quarter of the lowest to twice the highest seen, and those seen.
    genes
        Genes of the curves; None is, in each context, the 20 with the largest effect, averaged over the doses seen.
    level
        Content of the intervals, in (0, 1).
    key_added
        Key in `adata.uns`.

    Returns
    -------
    None. Writes `adata.uns[key]`, a dict with ``curves`` (``context``, ``gene``, ``dose``, ``delta``, ``low``,
    ``high``, the interval of `CFMVC.get_effect`; ``hill``, the fitted curve; ``seen``, whether training had this dose;
    ``extrapolated``, whether it lies beyond those) and ``ec50`` (``context``, ``gene``, the last of each context
    ``"all genes"``; ``ec50``, ``low``, ``high``, ``slope``; ``identified``, whether the interval lies within the doses
    seen).

    Raises
    ------
    NotTrainedError
        If the model is not trained.
    UnknownConditionError
        If the perturbation or a gene is unknown.
    DataError
        If fewer than two doses of the perturbation were seen, or an argument is out of range.

    Examples
    --------
    >>> cfmvc_scvi.tl.dose_response(adata, model, "A")
    >>> half = adata.uns["dose_response"]["ec50"]
    >>> ax = cfmvc_scvi.pl.dose_response(adata.uns["dose_response"])
    """
    seen = model.get_doses(perturbation)
    if len(seen) < 2:
        raise DataError(
            f"{perturbation!r} was seen at {len(seen)} dose(s) by itself; a curve needs two or more. Register doses "
            "with dose_key= of setup_anndata."
        )
    if doses is None:
        doses = np.geomspace(seen.min() / 4, seen.max() * 2, 25).tolist()
    at = np.unique(np.concatenate([np.asarray(doses, dtype=float).ravel(), seen]))
    if not (np.isfinite(at).all() and (at > 0).all()):
        raise DataError(f"doses must be finite and positive; got {list(doses)}.")
    effects = {float(dose): model.get_effect(perturbation, dose=float(dose), level=level) for dose in at}
    by_dose = pd.concat(effects, names=["dose"]).reset_index("dose").set_index(["context", "gene", "dose"])
    known = np.asarray(model.get_var_names(), dtype=str)
    for gene in () if genes is None else genes:
        check_key(gene, known, "the genes of the model")
    curves, halves = [], []
    for context, rows in by_dose.groupby(level="context", sort=False):
        rows = rows.droplevel("context")
        chosen = _largest(rows, seen) if genes is None else list(genes)
        curve, half = _one_context(rows, chosen, at, seen, level)
        curves.append(curve.assign(context=context))
        halves.append(half.assign(context=context))
    model._rna(adata).uns[key_added] = {
        name: table[["context", *table.columns.drop("context")]]
        for name, table in (
            ("curves", pd.concat(curves, ignore_index=True)),
            ("ec50", pd.concat(halves, ignore_index=True)),
        )
    }


def _largest(rows: pd.DataFrame, seen: np.ndarray) -> list[str]:
    """Genes of largest mean effect: chosen by one dose, its noise would bend the curves."""
    effect = rows["delta"].unstack("dose")[seen].mean(axis=1).abs()
    return list(effect.nlargest(_N_GENES).index)


def _one_context(
    rows: pd.DataFrame, genes: list[str], at: np.ndarray, seen: np.ndarray, level: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the curves and the half doses of the genes of one context."""
    tables = {name: rows[name].unstack("gene")[genes] for name in ("delta", "sd", "low", "high")}
    effect, sd = (tables[name].loc[seen].to_numpy() for name in ("delta", "sd"))
    each, shared = (fit_hill(seen, effect, sd, level, shared=together) for together in (False, True))
    halves = pd.concat([_halves(each, genes), _halves(shared, [ALL_GENES])], ignore_index=True)
    fitted = np.stack([each.effect(dose)[:, 0] for dose in at])
    columns = {name: tables[name].to_numpy().T.ravel() for name in ("delta", "low", "high")}
    curves = pd.DataFrame({"gene": np.repeat(genes, len(at)), "dose": np.tile(at, len(genes)), **columns})
    return curves.assign(
        hill=fitted.T.ravel(), seen=np.isin(curves["dose"], seen), extrapolated=curves["dose"] > seen.max()
    ), halves


def _halves(fit: HillFit, genes: list[str]) -> pd.DataFrame:
    values = {"ec50": fit.half_dose, "low": fit.low, "high": fit.high, "slope": fit.slope, "identified": fit.identified}
    return pd.DataFrame({"gene": genes, **values})
