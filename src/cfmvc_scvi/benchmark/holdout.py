"""Folds that hold out all perturbed cells of one (condition, context)."""

from __future__ import annotations

__all__ = ["Fold", "group_labels", "leave_one_context_out"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.data import Vocabulary, check_labels
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.pp import leave_out


@dataclass(frozen=True)
class Fold:
    """One held-out group of cells.

    Parameters
    ----------
    condition, context
        What is held out.
    train
        Cells a model may see: all but the held-out ones, (cells,) boolean.
    query
        Control cells of the context, to be perturbed, (cells,) boolean; also in `train`.
    truth
        The held-out cells, (cells,) boolean.
    siblings
        Cells of other perturbations in the context, (cells,) boolean; also in `train`.
    """

    condition: str
    context: str
    train: NDArray[np.bool_]
    query: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    siblings: NDArray[np.bool_]


def group_labels(
    adata: AnnData, perturbation_key: str, context_key: str, control: str
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Condition, combinations in their canonical form, and context of each cell, (cells,) each."""
    labels = check_labels(adata.obs, perturbation_key, "perturbation")
    vocabulary = Vocabulary.from_labels(labels, control)
    canonical = {label: vocabulary.canonical(label) for label in labels.unique()}
    context = check_labels(adata.obs, context_key, "context")
    return labels.map(canonical).to_numpy().astype(str), context.to_numpy().astype(str)


def leave_one_context_out(
    adata: AnnData,
    *,
    perturbation_key: str = "perturbation",
    context_key: str = "cell_type",
    control: str = "control",
    min_cells: int = 20,
) -> Iterator[Fold]:
    """Folds over all (condition, context) with enough cells that can be learned from another context.

    Parameters
    ----------
    adata
        Cells with both columns in obs, which are read and not altered.
    perturbation_key, context_key
        Columns of obs.
    control
        Name of the unperturbed condition.
    min_cells
        Perturbed and control cells that a context needs, as the held-out one and as the one to learn from.

    Yields
    ------
    Folds in alphabetical order of condition, then context.

    Raises
    ------
    UnknownConditionError
        If a column or the control is missing.
    DataError
        If a label is missing, or no fold is possible.
    """
    condition, context = group_labels(adata, perturbation_key, context_key, control)
    is_control = condition == control
    names = [str(name) for name in np.unique(context)]
    controlled = [name for name in names if ((context == name) & is_control).sum() >= min_cells]
    n_folds = 0
    for perturbed in (str(name) for name in np.unique(condition[~is_control])):
        covered = [name for name in controlled if ((context == name) & (condition == perturbed)).sum() >= min_cells]
        for name in covered if len(covered) > 1 else ():
            mask = leave_out(
                adata,
                perturbed,
                name,
                perturbation_key=perturbation_key,
                context_key=context_key,
                control=control,
            )
            n_folds += 1
            inside = context == name
            siblings = inside & ~is_control & ~mask.test
            yield Fold(perturbed, name, mask.train, inside & is_control, mask.test, siblings)
    if n_folds == 0:
        raise DataError(
            f"No perturbation has {min_cells} cells, and as many controls, in two contexts of obs['{context_key}']."
        )
