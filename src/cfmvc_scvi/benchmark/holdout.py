"""Folds: what is held out of the training data, by context, perturbation, combination or dose."""

from __future__ import annotations

__all__ = ["leave_one_context_out", "make_folds"]

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi._keys import COMBINATION_SEPARATOR
from cfmvc_scvi.benchmark.fold import Columns, Fold, Mask, group_labels
from cfmvc_scvi.errors import DataError, UnknownConditionError

_WORDS = ("perturbation", "combination", "dose")


@dataclass(frozen=True)
class _HeldOut:
    """Cells that no training cell may be of, and the (condition, context) predicted from the rest."""

    cells: Mask
    groups: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _Groups:
    """Cells by condition and context, and which groups are large enough."""

    condition: NDArray[np.str_]
    context: NDArray[np.str_]
    columns: Columns
    min_cells: int

    @property
    def conditions(self) -> list[str]:
        """Conditions but control, in alphabetical order."""
        return [str(name) for name in np.unique(self.condition) if name != self.columns.control]

    def of(self, condition: str, context: str) -> Mask:
        return (self.condition == condition) & (self.context == context)

    def covered(self, condition: str) -> list[str]:
        """Contexts with enough cells of `condition` and of the control."""
        names = (str(name) for name in np.unique(self.context))
        wanted = (condition, self.columns.control)
        return [name for name in names if all(self.of(c, name).sum() >= self.min_cells for c in wanted)]

    def parts(self, condition: str) -> tuple[str, ...]:
        """Perturbations of a condition, without doses."""
        written = condition.split(COMBINATION_SEPARATOR)
        return tuple(part.rpartition("@")[0] if self.columns.dose_key else part for part in written)

    def dose(self, condition: str) -> float | None:
        """Dose of each part of a condition; None without doses, NaN if the parts have different ones."""
        if self.columns.dose_key is None:
            return None
        doses = {float(part.rpartition("@")[2]) for part in condition.split(COMBINATION_SEPARATOR)}
        return doses.pop() if len(doses) == 1 else float("nan")

    def predictable(self, conditions: Iterable[str]) -> list[tuple[str, str]]:
        """Groups of these conditions that can be scored, and asked for by one dose."""
        asked = [c for c in conditions if not np.isnan(self.dose(c) or 0.0)]
        return [(condition, context) for condition in asked for context in self.covered(condition)]


def make_folds(
    adata: AnnData,
    holdout: str = "cell_type",
    *,
    perturbation_key: str = "perturbation",
    context_key: str | None = None,
    control: str = "control",
    dose_key: str | None = None,
    n_splits: int | None = None,
    min_cells: int = 20,
) -> list[Fold]:
    """Hold out contexts, perturbations, combinations or doses; control cells are never held out.

    ========================  ==========================================================================================
    `holdout`                 held out; what is predicted
    ========================  ==========================================================================================
    a column of obs           the cells of one perturbation in one of its groups: a cell type, a donor, a patient, a
                              replicate (for donor within cell type, make a column of both)
    ``"perturbation"``        all cells of a perturbation, in all contexts and combinations; alone, in each context
    ``"combination"``         all cells of a combination, whose parts stay; in each context
    ``"dose"``                all cells of a perturbation at a dose, whose other doses stay; in each context
    ========================  ==========================================================================================

    Parameters
    ----------
    adata
        Cells with the columns in obs, which are read and not altered.
    holdout
        A column of obs, or one of the words of the table; a word means what the table says, though a column may have
        that name.
    perturbation_key
        Column of obs with the perturbations.
    context_key
        Column of obs within which effects are compared; the column `holdout`, or None: all cells are one context.
    control
        Name of the unperturbed cells.
    dose_key
        Column of obs with doses; each dose of a perturbation is then a condition of its own. ``holdout="dose"`` needs
        it.
    n_splits
        Number of training sets: several perturbations, combinations or doses, every `n_splits`-th of them in
        alphabetical order, are held out together, so that many of them need few trainings. None: one training for each.
    min_cells
        Perturbed and control cells that a group needs for being predicted.

    Returns
    -------
    Folds, numbered; those of equal `Fold.training` have the same training cells.

    Raises
    ------
    UnknownConditionError
        If `holdout` or another column is missing.
    DataError
        If labels are missing, nothing can be held out, or `n_splits` is impossible.
    """
    if holdout not in _WORDS and holdout not in adata.obs:
        raise UnknownConditionError(
            f"'{holdout}' cannot be held out: it is no column of obs ({', '.join(map(str, adata.obs.columns))}) and "
            f"none of the words {', '.join(_WORDS)}."
        )
    by_context = holdout not in _WORDS
    if by_context and context_key not in (None, holdout):
        raise DataError(f"holdout is the column '{holdout}', so context_key cannot be '{context_key}'; leave it out.")
    if by_context and n_splits is not None:
        raise DataError(f"n_splits goes with {', '.join(_WORDS)}; groups of '{holdout}' are held out one by one.")
    if holdout == "dose" and dose_key is None:
        raise DataError("holding out doses needs dose_key, the column of obs with the dose of each cell.")
    columns = Columns(perturbation_key, holdout if by_context else context_key, control, dose_key)
    groups = _Groups(*group_labels(adata, columns), columns, min_cells)
    if control not in groups.condition:
        raise DataError(f"no cell has '{control}' in obs['{perturbation_key}']; predictions start from control cells.")
    held_out = _contexts(groups) if by_context else _SETS[holdout](groups, n_splits)
    return list(_folds(groups, held_out))


def leave_one_context_out(
    adata: AnnData,
    *,
    perturbation_key: str = "perturbation",
    context_key: str = "cell_type",
    control: str = "control",
    min_cells: int = 20,
) -> Iterator[Fold]:
    """Folds over all (condition, context) with enough cells that can be learned from another context.

    Parameters, order and errors are those of `make_folds`, with `context_key` as the column held out.
    """
    yield from make_folds(adata, context_key, perturbation_key=perturbation_key, control=control, min_cells=min_cells)


def _folds(groups: _Groups, held_out: Iterable[_HeldOut]) -> Iterator[Fold]:
    is_control, number = groups.condition == groups.columns.control, 0
    for training, part in enumerate(held_out):
        train = ~part.cells
        for condition, context in part.groups:
            inside = groups.context == context
            yield Fold(
                condition,
                context,
                train,
                query=inside & is_control,
                truth=groups.of(condition, context),
                siblings=inside & ~is_control & train,
                number=number,
                training=training,
                dose=groups.dose(condition),
            )
            number += 1


def _contexts(groups: _Groups) -> list[_HeldOut]:
    found = []
    for condition in groups.conditions:
        predictable = groups.predictable([condition])
        for group in predictable if len(predictable) > 1 else ():
            found.append(_HeldOut(groups.of(*group), [group]))
    if not found:
        raise DataError(
            f"No perturbation has {groups.min_cells} cells, and as many controls, in two contexts of "
            f"obs['{groups.columns.context_key}']; one is held out and the other learned from."
        )
    return found


def _perturbations(groups: _Groups, n_splits: int | None) -> list[_HeldOut]:
    singles: dict[str, list[str]] = {}
    for condition in groups.conditions:
        if len(groups.parts(condition)) == 1 and groups.predictable([condition]):
            singles.setdefault(groups.parts(condition)[0], []).append(condition)
    n_known = len({part for condition in groups.conditions for part in groups.parts(condition)})
    if not singles or n_known < 2:
        raise DataError(
            f"There are {n_known} perturbations, {len(singles)} of them with {groups.min_cells} cells of their own in "
            "a context with as many controls; one of those is held out, and at least one other learned from."
        )
    found = []
    for names in _split(sorted(singles), n_splits, "perturbations"):
        parts = {condition: groups.parts(condition) for condition in groups.conditions}
        touched = [condition for condition, own in parts.items() if set(own) & set(names)]
        if len(touched) == len(parts):
            raise DataError(f"Without {', '.join(names)} no perturbed cell is left to learn from; raise n_splits.")
        predicted = groups.predictable(condition for name in names for condition in singles[name])
        found.append(_HeldOut(np.isin(groups.condition, touched), predicted))
    return found


def _combinations(groups: _Groups, n_splits: int | None) -> list[_HeldOut]:
    parts = {condition: groups.parts(condition) for condition in groups.conditions}
    alone = {own[0] for own in parts.values() if len(own) == 1}
    combinations = [condition for condition, own in parts.items() if len(own) > 1]
    usable = [c for c in combinations if set(parts[c]) <= alone and groups.predictable([c])]
    if not usable:
        raise DataError(
            f"There are {len(combinations)} combinations ('A{COMBINATION_SEPARATOR}B' in "
            f"obs['{groups.columns.perturbation_key}']); none has {groups.min_cells} cells in a context with as many "
            "controls and parts that also occur alone, from which it could be predicted."
        )
    sets = _split(usable, n_splits, "combinations")
    return [_HeldOut(np.isin(groups.condition, names), groups.predictable(names)) for names in sets]


def _doses(groups: _Groups, n_splits: int | None) -> list[_HeldOut]:
    doses: dict[str, list[str]] = {}
    for condition in groups.conditions:
        if len(groups.parts(condition)) == 1:
            doses.setdefault(groups.parts(condition)[0], []).append(condition)
    several = [condition for own in doses.values() if len(own) > 1 for condition in own]
    usable = [condition for condition in several if groups.predictable([condition])]
    if not usable:
        raise DataError(
            f"No perturbation has two doses in obs['{groups.columns.dose_key}'], one of them with {groups.min_cells} "
            "cells in a context with as many controls; one dose is held out and the others learned from."
        )
    ordered = sorted(usable, key=lambda condition: (groups.parts(condition), groups.dose(condition)))
    sets = _split(ordered, n_splits, "doses")
    return [_HeldOut(np.isin(groups.condition, names), groups.predictable(names)) for names in sets]


_SETS = {"perturbation": _perturbations, "combination": _combinations, "dose": _doses}


def _split(names: list[str], n_splits: int | None, what: str) -> list[list[str]]:
    n_sets = len(names) if n_splits is None else n_splits
    if not 1 <= n_sets <= len(names):
        raise DataError(f"n_splits is {n_splits}; there are {len(names)} {what} to hold out, so 1 to {len(names)}.")
    return [names[start::n_sets] for start in range(n_sets)]
