"""One held-out group of cells, the labels that define groups, and names that are safe as file names."""

from __future__ import annotations

__all__ = ["Columns", "Fold", "fold_seed", "group_labels", "slug"]

import re
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.data import Vocabulary, check_key, check_labels

Mask = NDArray[np.bool_]

_UNSAFE = re.compile(r"[^A-Za-z0-9.+@=-]+")
_LONGEST_SLUG = 60  # characters; a fold id has two slugs and a number, and file names end at 255 bytes
_ONE_CONTEXT = "all cells"


@dataclass(frozen=True)
class Columns:
    """Columns of obs that say what a cell is.

    Parameters
    ----------
    perturbation_key
        Perturbation of each cell, combinations written A+B.
    context_key
        Groups within which effects are compared: cell types, donors, patients. None: all cells are one group.
    control
        Name of the unperturbed cells.
    dose_key
        Dose of each cell. With it, each dose of a perturbation is a condition of its own, written A@0.5.
    """

    perturbation_key: str = "perturbation"
    context_key: str | None = "cell_type"
    control: str = "control"
    dose_key: str | None = None


@dataclass(frozen=True)
class Fold:
    """One held-out group of cells.

    Parameters
    ----------
    condition, context
        What is held out; a condition has its dose, where there are doses ('A@0.5').
    train
        Cells a model may see: all but the held-out ones, (cells,) boolean.
    query
        Control cells of the context, to be perturbed, (cells,) boolean; also in `train`.
    truth
        The held-out cells, (cells,) boolean.
    siblings
        Cells of other perturbations in the context, (cells,) boolean; also in `train`.
    number
        Position among the folds of a data set, from 0.
    training
        Number of the training set; folds with the same one are predicted by the same trained model.
    dose
        Dose of each part of the perturbation; None without doses.
    """

    condition: str
    context: str
    train: Mask
    query: Mask
    truth: Mask
    siblings: Mask
    number: int = 0
    training: int = 0
    dose: float | None = None

    @property
    def perturbation(self) -> str:
        """The condition without its dose."""
        return (
            self.condition
            if self.dose is None
            else "+".join(part.rpartition("@")[0] for part in self.condition.split("+"))
        )

    @property
    def id(self) -> str:
        """Name of the fold that is safe as a file name, for example ``"003-IFNb-B_cells"``."""
        return f"{self.number:03d}-{slug(self.condition)}-{slug(self.context)}"


def slug(name: str) -> str:
    """`name` with letters, digits and ``.+@=-`` kept, the rest as underscores, at most 60 characters."""
    return _UNSAFE.sub("_", name).strip("._")[:_LONGEST_SLUG] or "_"


def fold_seed(seed: int, number: int) -> int:
    """Seed of a random stream of its own for a seed of the benchmark and a fold, or a training set."""
    return int(np.random.SeedSequence((seed, number, 0)).generate_state(1)[0])


def group_labels(adata: AnnData, columns: Columns) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Condition, combinations in their canonical form and with doses where there are, and context, (cells,) each.

    Raises
    ------
    UnknownConditionError
        If a column is missing.
    DataError
        If a cell has no label, or a perturbed cell no dose.
    """
    labels = check_labels(adata.obs, columns.perturbation_key, "perturbation")
    vocabulary = Vocabulary.from_labels(labels, columns.control)
    if columns.dose_key is None:
        canonical = {label: vocabulary.canonical(label) for label in labels.unique()}
        condition = labels.map(canonical).to_numpy()
    else:
        check_key(columns.dose_key, adata.obs.columns, "adata.obs")
        design = vocabulary.design(labels, adata.obs[columns.dose_key])
        condition = np.array(vocabulary.names(design, with_dose=True))
    if columns.context_key is None:
        return condition.astype(str), np.full(adata.n_obs, _ONE_CONTEXT)
    context = check_labels(adata.obs, columns.context_key, "context")
    return condition.astype(str), context.to_numpy().astype(str)
