"""Whether the effect on the individual cell is right, where a simulation knows it."""

from __future__ import annotations

__all__ = ["cell_effect_correlation"]

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values, same_genes


def _centred(values: Array, codes: NDArray[np.intp], n_groups: int) -> Array:
    size = np.bincount(codes, minlength=n_groups)[:, None]
    total = np.zeros((n_groups, values.shape[1]))
    np.add.at(total, codes, values)
    return values - (total / size)[codes]


def cell_effect_correlation(predicted: ArrayLike, truth: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Correlation of predicted and true per-cell effects around the mean effect of their group.

    With e the effect of a cell minus the mean of its group, r = sum e_predicted e_truth / (|e_predicted| |e_truth|)
    over all cells and genes. What a mean shift knows is removed: any prediction that is one shift per group scores 0 by
    definition.

    Parameters
    ----------
    predicted, truth
        Effects (cells, genes or latent dimensions): counterfactual minus observed, of the same cells in the same order.
    groups
        (condition, context) of each cell, (cells,); one group if not given.

    Returns
    -------
    A number in [-1, 1].

    Raises
    ------
    DataError
        If the shapes differ, or no group has true effects that differ between its cells.
    """
    p, t = cell_values("predicted", predicted, min_cells=2), cell_values("truth", truth, min_cells=2)
    same_genes(predicted=p, truth=t)
    labels = np.zeros(len(t), dtype=np.intp) if groups is None else np.asarray(groups)
    if not len(p) == len(t) == len(labels):
        raise DataError(
            f"{len(p)} predicted, {len(t)} true cells and {len(labels)} labels; they must be the same cells."
        )
    names, codes = np.unique(labels, return_inverse=True)
    p, t = _centred(p, codes, len(names)), _centred(t, codes, len(names))
    size_of_predicted, size_of_truth = np.linalg.norm(p), np.linalg.norm(t)
    rounding = 1e-12 * np.sqrt(t.size)
    if size_of_truth <= rounding:
        raise DataError("True effects do not differ between the cells of a group: there is nothing to correlate with.")
    if size_of_predicted <= rounding:
        return 0.0
    return float((p * t).sum() / (size_of_predicted * size_of_truth))
