"""The truth behind simulated cells: small arrays from which the expression of any cell under any condition follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.data import Vocabulary
from cfmvc_scvi.errors import DataError

__all__ = ["CONTROL", "RESPONSE_KEY", "STATE_KEY", "TRUTH_KEY", "Cells", "Truth", "true_counterfactual"]

Array = NDArray[np.float64]

CONTROL = "control"
TRUTH_KEY = "simulation"
STATE_KEY = "true_state"
RESPONSE_KEY = "true_response"
_SCALE = 1e4  # counts per 10k


@dataclass(frozen=True)
class Cells:
    """What a counterfactual holds fixed: one row per cell.

    Parameters
    ----------
    cell_type
        Index of the cell type, (cells,).
    batch
        Index of the batch, (cells,).
    sample
        Index of the sample, (cells,).
    state
        Activity of each gene programme, (cells, programmes).
    response
        Strength with which a cell responds to each perturbation, zero for non-responders, (cells, perturbations).
    """

    cell_type: NDArray[np.intp]
    batch: NDArray[np.intp]
    sample: NDArray[np.intp]
    state: Array
    response: Array

    def __getitem__(self, rows: slice) -> Cells:
        return Cells(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class Truth:
    r"""Parameters of the simulation; all effects are additive in log rate.

    With `h` the Hill curve of the dose, `r` a cell's response strengths and `a_j = h(dose_j) r_j`,

    .. math:: \log \rho = \text{base} + \text{type} + \text{state} \cdot P + \text{sample} + \text{batch}
        + \sum_j a_j \left(E_{j,\text{type}} + (\text{state} \cdot w_j) F_j\right) + \sum_{j < k} a_j a_k (Q_j + Q_k).

    Parameters
    ----------
    genes, perturbations, cell_types, batches, samples
        Names.
    base
        Log rate of a gene, (genes,).
    type_profile, batch_profile, sample_profile
        Log factors of a cell type, batch and sample, (groups, genes).
    programs
        P, loadings of the states, (programmes, genes).
    effect
        E, effect of a perturbation in a cell type, (perturbations, types, genes).
    state_effect, modifier
        F (perturbations, genes) and w (perturbations, programmes): the genes that follow only in some states.
    interaction
        Q, what a perturbation adds in the presence of another one, (perturbations, genes).
    half_dose
        Dose of half effect, (perturbations,).
    hill
        Exponent of the Hill curve.
    """

    genes: NDArray[np.str_]
    perturbations: NDArray[np.str_]
    cell_types: NDArray[np.str_]
    batches: NDArray[np.str_]
    samples: NDArray[np.str_]
    base: Array
    type_profile: Array
    batch_profile: Array
    sample_profile: Array
    programs: Array
    effect: Array
    state_effect: Array
    modifier: Array
    interaction: Array
    half_dose: Array
    hill: float

    def design(self, perturbation: Sequence[str], dose: Array) -> Array:
        """Saturation `h(dose)` of each perturbation in a cell, zero where it is absent.

        Parameters
        ----------
        perturbation
            One label per cell: ``"control"``, ``"A"`` or ``"A+B"`` in any order.
        dose
            Dose of the perturbations of a cell, in the unit of the simulated doses, (cells,).

        Returns
        -------
        Saturations between 0 and 1, (cells, perturbations).

        Raises
        ------
        UnknownConditionError
            If a part of a label was not simulated.
        """
        vocabulary = Vocabulary(tuple(map(str, self.perturbations)), CONTROL)
        power = np.asarray(dose, dtype=float)[:, None] ** self.hill
        return (vocabulary.design(perturbation) > 0) * power / (power + self.half_dose**self.hill)

    def fractions(self, cells: Cells, design: Array) -> Array:
        """Expected share of each gene in a cell's counts, summing to one, (cells, genes).

        Parameters
        ----------
        cells
            The cells.
        design
            Saturation of each perturbation, (cells, perturbations); see `design`.
        """
        strength = design * cells.response
        log_rate = self.base + cells.state @ self.programs
        for codes, profile in (
            (cells.cell_type, self.type_profile),
            (cells.batch, self.batch_profile),
            (cells.sample, self.sample_profile),
        ):
            log_rate += profile[codes]
        for kind in np.unique(cells.cell_type):
            rows = cells.cell_type == kind
            log_rate[rows] += strength[rows] @ self.effect[:, kind]
        log_rate += (strength * (cells.state @ self.modifier.T)) @ self.state_effect
        others = strength.sum(axis=1, keepdims=True) - strength  # sum over pairs of a_j a_k (Q_j + Q_k)
        log_rate += (strength * others) @ self.interaction
        rate = np.exp(log_rate - log_rate.max(axis=1, keepdims=True))
        return rate / rate.sum(axis=1, keepdims=True)


def true_counterfactual(adata: AnnData, perturbation: str | None = None, dose: float | None = None) -> Array:
    r"""Expected expression of each simulated cell under another condition: the truth that no experiment can observe.

    .. math:: 10^4 \, \rho_g \Big/ \sum_{g'} \rho_{g'}

    The same cell throughout: cell type, state, responder status, niche, sample and batch are its own; only
    perturbation and dose change. Expected counts at the cell's own depth are this times depth / 10^4. The sum runs
    over all simulated genes, also where `adata` holds only some of them.

    Reads `obs` ``perturbation``, ``dose``, ``cell_type``, ``batch``, ``sample``; `obsm` ``true_state``,
    ``true_response``; `uns` ``simulation``. Nothing is written.

    Parameters
    ----------
    adata
        Result of `simulated_perturbation`, or any subset of its cells and genes in any order.
    perturbation
        ``"control"``, a perturbation, or perturbations joined by ``+``, also a combination that was not observed.
        None: each cell's own.
    dose
        In the unit of the simulated doses; any non-negative value. None: the highest dose of the data set for a given
        `perturbation`, else each cell's own.

    Returns
    -------
    Expected counts per 10k, (cells, genes).

    Raises
    ------
    DataError
        If `adata` does not carry the truth of a simulation, has genes or labels that were not simulated, or the dose is
        negative or not finite.
    UnknownConditionError
        If a part of `perturbation` was not simulated.

    Examples
    --------
    >>> from cfmvc_scvi.datasets import simulated_perturbation, true_counterfactual
    >>> adata = simulated_perturbation(n_cells=200, n_genes=50)
    >>> effect = true_counterfactual(adata, "A") - true_counterfactual(adata, "control")
    >>> bool((effect[~adata.obs["responder"]] == 0).all())
    True
    """
    truth, cells = _read(adata)
    labels = adata.obs["perturbation"].astype(str).to_numpy() if perturbation is None else [perturbation] * adata.n_obs
    doses = adata.obs["dose"].to_numpy(float)
    if dose is not None:
        if not (np.isfinite(dose) and dose >= 0):
            raise DataError(f"dose must be a finite number of at least 0, got {dose}")
        doses = np.full(adata.n_obs, float(dose))
    elif perturbation is not None:
        doses = np.full(adata.n_obs, float(adata.uns[TRUTH_KEY]["max_dose"]))
    columns = pd.Index(truth.genes).get_indexer(adata.var_names)
    if (columns < 0).any():
        raise DataError(f"{(columns < 0).sum()} genes were not simulated, first '{adata.var_names[columns < 0][0]}'")
    return _SCALE * truth.fractions(cells, truth.design(labels, doses))[:, columns]


def _read(adata: AnnData) -> tuple[Truth, Cells]:
    missing = [f"uns['{TRUTH_KEY}']"] * (TRUTH_KEY not in adata.uns)
    missing += [f"obsm['{key}']" for key in (STATE_KEY, RESPONSE_KEY) if key not in adata.obsm]
    missing += [
        f"obs['{key}']" for key in ("perturbation", "dose", "cell_type", "batch", "sample") if key not in adata.obs
    ]
    if missing:
        raise DataError(
            f"no simulated truth in this AnnData, missing: {', '.join(missing)}; "
            "only the result of simulated_perturbation (or a subset of it) has one"
        )
    truth = Truth(**adata.uns[TRUTH_KEY]["truth"])
    codes = {}
    for key, names in (("cell_type", truth.cell_types), ("batch", truth.batches), ("sample", truth.samples)):
        code = pd.Index(names).get_indexer(adata.obs[key].astype(str))
        if (code < 0).any():
            raise DataError(f"{(code < 0).sum()} cells have a label in obs['{key}'] that was not simulated")
        codes[key] = code
    return truth, Cells(**codes, state=adata.obsm[STATE_KEY], response=adata.obsm[RESPONSE_KEY])
