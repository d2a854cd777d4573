"""The metrics of the Virtual Cell Challenge 2026, by the scorer of its organisers."""

from __future__ import annotations

__all__ = ["challenge_scores"]

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.benchmark.cells import Prediction
from cfmvc_scvi.data import check_counts
from cfmvc_scvi.errors import DataError

_TARGET, _CONTROL = "target", "cfmvc control"
_AMONG_OTHERS = "pds_cosine"  # needs several perturbations


def challenge_scores(
    predicted: AnnData,
    truth: AnnData,
    control: AnnData,
    predicted_condition: Iterable[str],
    true_condition: Iterable[str],
) -> pd.DataFrame:
    """Score predicted counts of one context by ``cell-eval2`` and its preset ``vcc2026``.

    Differential expression is by scanpy's rank-sum test on the CPU. A condition that is called like a gene is taken for
    its target, which the discrimination score leaves out; others have no target gene.

    Parameters
    ----------
    predicted, truth, control
        Raw counts of predicted, real perturbed and real control cells, the same genes in the same order.
    predicted_condition, true_condition
        Condition of each predicted, and of each real perturbed cell; the same conditions on both sides.

    Returns
    -------
    Columns condition, metric (names of cell-eval2), value. ``pds_cosine`` is left out with one condition.

    Raises
    ------
    MissingExtraError
        If ``cell-eval2`` is not installed.
    DataError
        If predicted values are not counts, or genes or conditions differ.

    Notes
    -----
    These are raw values; the challenge rescales them between its own baseline and replicates. Its error of expression
    is a ratio of sums over conditions, which `summarise` makes of the two parts that are given here.
    """
    scorer = require_extra("cell_eval2", "eval")
    for cells in (predicted, truth, control):
        check_counts(cells, None, training=False)
        if not cells.var_names.equals(truth.var_names):
            raise DataError("predicted, true and control cells have different genes; bring them to the same order.")
    Prediction(predicted.X)  # whole numbers
    own, real = (np.asarray(list(labels), dtype=str) for labels in (predicted_condition, true_condition))
    names = sorted(set(real))
    if set(own) != set(names):
        raise DataError(f"predicted conditions are {sorted(set(own))}, true ones {names}; give the same on both sides.")
    genes = set(truth.var_names)
    preset = scorer.EvalConfig.from_preset("vcc2026")
    config = replace(
        preset,
        pert_col=_TARGET,
        control=_CONTROL,
        device="cpu",
        cache_strict=False,  # nothing is cached
        de=replace(preset.de, backend="scanpy"),
        target_gene_map={name: name if name in genes else None for name in names},
    )
    sides = [
        _labelled([(cells, labels), (control, None)], name)
        for name, cells, labels in (("predicted", predicted, own), ("real", truth, real))
    ]
    with np.errstate(divide="ignore", invalid="ignore"):  # scanpy, in genes without variance
        table = scorer.compute_metrics(*sides, config=config)
    columns = {"perturbation": "condition", "metric": "metric", "value": "value"}
    frame = pd.DataFrame({name: table[column].to_list() for column, name in columns.items()})
    if len(names) == 1:
        frame = frame[frame["metric"] != _AMONG_OTHERS]
    return frame.sort_values(["condition", "metric"], ignore_index=True)


def _labelled(parts: list[tuple[AnnData, NDArray[np.str_] | None]], side: str) -> AnnData:
    """Counts of all parts in one AnnData, with the label of each cell; None is the control, `side` begins the names."""
    counts = sp.vstack([sp.csr_matrix(cells.X, dtype=np.float32) for cells, _ in parts], format="csr")
    labels = [np.full(cells.n_obs, _CONTROL) if own is None else own for cells, own in parts]
    names = [f"{side} {i}" for i in range(counts.shape[0])]  # unique over sides: the scorer joins cells of both
    obs = pd.DataFrame({_TARGET: pd.Categorical(np.concatenate(labels))}, index=names)
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=parts[0][0].var_names))
