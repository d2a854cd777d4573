"""What combinations do beyond the sum of their parts: per gene, per context and per cell."""

from __future__ import annotations

__all__ = ["interactions"]

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model import CFMVC
from cfmvc_scvi.shift import GENE_CLASSES, pair_fit

Array = NDArray[np.float64]


def interactions(
    adata: AnnData,
    model: CFMVC,
    combination: str,
    *,
    dose: float | None = None,
    level: float = 0.9,
    key_added: str = "interactions",
    cells: bool = True,
    **kwargs: Any,
) -> None:
    r"""Write what a combination does beyond the sum of its parts into the data: synergy, suppression, epistasis.

    Genes by the expected effects of each context (`CFMVC.get_interaction`), pairs as a whole after Norman et al. 2019
    (`shift.pair_fit`), and cells by their own predicted effects e in log1p CP10k,

    .. math:: \text{interaction} = e_{AB} - s, \qquad \text{strength} = e_{AB} \cdot s / s \cdot s, \quad s = e_A + e_B

    so that a strength above 1 is synergy in this cell and below 1 suppression. Cells show the interaction of their
    context; how cells of one context differ in it is hardly known (see the page "Questions").

    Parameters
    ----------
    adata
        Cells with the registered columns.
    model
        A trained model.
    combination
        Two or more perturbations, ``'A+B'``.
    dose
        Dose of each part; None is 1.
    level
        Content of the intervals behind the classes, in (0, 1).
    key_added
        Name of the results.
    cells
        Also predict each cell, under control, the parts and the combination.
    **kwargs
        Passed to `CFMVC.predict_counterfactual`, for the cells: ``heterogeneity``, ``batch_size`` and so on.

    Returns
    -------
    None. Writes `adata.uns[key]`, a dict with ``genes`` (the table of `CFMVC.get_interaction`) and ``contexts`` (one
    row per context: number of genes of each class and, for pairs, the fields of `shift.PairFit`); with `cells`,
    `adata.layers[key]` (interaction of each cell and gene, in log1p CP10k) and `adata.obs[key]` (its strength).

    Raises
    ------
    NotTrainedError
        If the model is not trained.
    UnknownConditionError
        If a part is unknown, or was never seen by itself.
    DataError
        If it is no combination, or an argument is out of range.

    Examples
    --------
    >>> cfmvc_scvi.tl.interactions(adata, model, "A+B")
    >>> adata.uns["interactions"]["contexts"]["context"].tolist()
    ['type_0', 'type_1', 'type_2']
    """
    rna = model._rna(adata)
    if rna.is_view and cells:
        raise DataError("Results cannot be written into a view; pass adata.copy(), or cells=False.")
    if taken := sorted({"output", "perturbation", "n_samples", "key_added"} & kwargs.keys()):
        raise DataError(f"{taken[0]}= is chosen here; leave it out.")
    genes = model.get_interaction(combination, dose=dose, level=level)
    parts = list(genes.columns[2 : genes.columns.get_loc("together")])
    contexts = [_context(rows, parts) for _, rows in genes.groupby("context", sort=False)]
    rna.uns[key_added] = {"genes": genes, "contexts": pd.DataFrame(contexts)}
    if cells:
        asked = {"output": "normalized", "dose": dose, "seed": 0, **kwargs}
        together, *single = _effects(adata, model, (combination, *parts), asked)
        total = np.sum(single, axis=0)
        positions = pd.Index(np.asarray(model.get_var_names(), dtype=str)).get_indexer(rna.var_names)
        if (positions < 0).any():
            raise DataError(
                f"{(positions < 0).sum()} genes of the data are not of the model; subset them, or cells=False."
            )
        rna.layers[key_added] = (together - total)[:, positions].astype(np.float32)
        length = (total**2).sum(axis=1)
        rna.obs[key_added] = (together * total).sum(axis=1) / np.where(length > 0, length, np.nan)


def _context(rows: pd.DataFrame, parts: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"context": rows["context"].iloc[0], "basis": rows["basis"].iloc[0]}
    result |= {f"n_{name}": int((rows["class"] == name).sum()) for name in GENE_CLASSES}
    effects = [rows[name].to_numpy() for name in (*parts, "together")]
    if len(parts) == 2 and all(effect.any() for effect in effects):
        result |= vars(pair_fit(*effects))
    return result


def _effects(adata: AnnData, model: CFMVC, names: Sequence[str], asked: dict[str, Any]) -> list[Array]:
    """Change of log1p of the expected CP10k of each cell from control under each condition, (cells, genes)."""
    assert model.vocabulary is not None  # get_interaction refused such models
    questions = [{**asked, "dose": None, "perturbation": model.vocabulary.control}]
    questions += [{**asked, "perturbation": name} for name in names]
    before, *after = (np.log1p(model.predict_counterfactual(adata, **each).X.astype(float)) for each in questions)
    return [values - before for values in after]
