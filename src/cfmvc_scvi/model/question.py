"""What is asked of a model: the condition each cell shall have, checked against what the model knows."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.data import Contexts, Vocabulary, check_key
from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.model.cells import Group, Groups
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.networks import Inputs
from cfmvc_scvi.model.reference import Reference

__all__ = [
    "OUTPUTS",
    "Change",
    "Known",
    "asked_contexts",
    "asked_design",
    "asked_groups",
    "asked_indices",
    "asked_perturbations",
    "category_code",
    "check_output",
    "check_scales",
    "level_of",
    "levels",
]

OUTPUTS = ("counts", "rate", "normalized", "latent")
_MOST_STRENGTH = 1.5


@dataclass(frozen=True)
class Known:
    """What a trained model knows by name, and what it remembers of its training.

    Attributes
    ----------
    vocabulary
        Perturbations and control.
    reference
        Groups of training cells.
    labels, batches, samples
        Names of the registered categories, in the order of their codes; `samples` is None where none are registered.
    has_doses
        Whether doses are registered.
    """

    vocabulary: Vocabulary
    reference: Reference
    labels: tuple[str, ...]
    batches: tuple[str, ...]
    samples: tuple[str, ...] | None
    has_doses: bool

    @property
    def contexts(self) -> Contexts:
        """The (label x sample) contexts."""
        return self.reference.contexts


class Change:
    """Turns the registered condition of each cell into the one asked for.

    Parameters
    ----------
    known
        What the model knows.
    perturbation, dose, labels, batch
        As in `CFMVC.predict_counterfactual`; None stays as it is.

    Raises
    ------
    UnknownConditionError
        If the model does not know one of them.
    DataError
        If the dose cannot be used.
    """

    def __init__(
        self, known: Known, perturbation: str | None, dose: float | None, labels: str | None, batch: str | None
    ) -> None:
        self.contexts, self.has_samples, self.dose = known.contexts, known.samples is not None, dose
        self.design = None if perturbation is None else asked_design(known, perturbation, dose)
        if perturbation is None and dose is not None:
            _check_dose(known, dose)
        self.label = None if labels is None else category_code("label", known.labels, labels)
        self.batch = -1 if batch is None else category_code("batch", known.batches, batch)

    def own(self, inputs: Inputs) -> Groups:
        """Return the group of each cell, from its design and its codes; without a batch where none is asked for."""
        keys = CFMVC_REGISTRY_KEYS
        design, label = inputs[keys.PERTURBATION_KEY], _codes(inputs[keys.LABELS_KEY])
        sample = _codes(inputs[keys.SAMPLE_KEY]) if self.has_samples else None
        batch = np.full(len(label), -1) if self.batch < 0 else _codes(inputs[keys.BATCH_KEY])
        return Groups.of(design, self.contexts.encode(label, sample), batch)

    def wanted(self, own: Groups) -> Groups:
        """Return the groups asked for, of cells with these groups."""
        context = np.array([group.context for group in own.kinds])
        if self.label is not None:
            sample = np.array(self.contexts.sample)[context] if self.has_samples else None
            context = self.contexts.encode(np.full_like(context, self.label), sample)
        design = np.stack([self._wanted(group.row) for group in own.kinds])
        kinds = Groups.of(design, context, np.full(len(context), self.batch))
        return Groups(kinds.kinds, kinds.code[own.code])

    def _wanted(self, design: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.design is not None:
            return self.design
        return design if self.dose is None else np.where(design > 0, np.float32(self.dose), design)


def _codes(values: NDArray) -> NDArray[np.int64]:
    return np.asarray(values).reshape(-1).astype(np.int64)


def asked_design(known: Known, perturbation: str, dose: float | None) -> NDArray[np.float32]:
    """Return the design row `(perturbations,)` of a condition.

    Raises
    ------
    UnknownConditionError
        If the model does not know a part of it.
    DataError
        If the dose is not a number >= 0, or the model was trained without doses.
    """
    if dose is not None:
        _check_dose(known, dose)
    return known.vocabulary.design(str(perturbation), dose)[0]


def category_code(kind: str, names: Sequence[str], name: str) -> int:
    """Return the code of a registered label, batch or sample; UnknownConditionError if there is none of this name."""
    check_key(str(name), names, f"the registered {kind} categories")
    return names.index(str(name))


def asked_contexts(known: Known, labels: str | None, sample: str | None) -> NDArray[np.int64]:
    """Return the codes of the contexts of a label, of a sample, of both, or all that have control cells.

    Raises
    ------
    UnknownConditionError
        If the label, the sample or their combination is unknown or has no control cells.
    DataError
        If a sample is asked for and none are registered.
    """
    reference, contexts = known.reference, known.contexts
    if sample is not None and known.samples is None:
        raise DataError("sample= is given, but no samples are registered; pass sample_key= to setup_anndata and train.")
    chosen = np.ones(contexts.n_contexts, dtype=bool)
    if labels is not None:
        chosen &= np.array(contexts.label) == category_code("label", known.labels, labels)
    if sample is not None:
        chosen &= np.array(contexts.sample) == category_code("sample", known.samples or (), sample)
    codes = np.intersect1d(np.flatnonzero(chosen), reference.control_contexts)
    if not len(codes):
        asked = " | ".join(name for name in (labels, sample) if name is not None)
        others = ", ".join(contexts.names[code] for code in reference.control_contexts[:5])
        raise UnknownConditionError(
            f"No control cells of '{asked}' in training, so nothing can be drawn there. Contexts with control cells: "
            f"{others}{', ...' if len(reference.control_contexts) > 5 else ''}."
        )
    return codes


def levels(
    known: Known, own: Groups, wanted: Groups, kept: MutableMapping[Group, Level] | None = None
) -> dict[Group, Level]:
    """Return the level of each group asked for, of cells that are to change.

    Parameters
    ----------
    known, own, wanted
        The model, the groups of cells, and those asked for.
    kept
        Levels found before, which grows.

    Raises
    ------
    UnknownConditionError
        If a context has no control cells, or a part was never seen by itself and has no features.
    DataError
        If features are to tell of a part, and fewer than three perturbations were seen by themselves.
    """
    kept = {} if kept is None else kept
    changes = [pair for pair in own.pairs(wanted) if pair[0] != pair[1]]
    found: dict[Group, Level] = {}
    for group in chain.from_iterable(changes):
        if group not in found:
            found[group] = kept[group] if group in kept else level_of(known, group)
            kept[group] = found[group]
    return {after: found[after] for _, after in changes}


def level_of(known: Known, group: Group) -> Level:
    """Return the level of a group; errors as in `levels`."""
    missing = known.reference.missing_parts(group.row)
    if missing:
        name, part = known.vocabulary.names(group.row)[0], known.vocabulary.perturbations[missing[0]]
        raise UnknownConditionError(
            f"{name!r} was not seen in training, and neither was {part!r} by itself, so what it does alone is not "
            f"known ({len(missing)} such). Train with cells of it alone, or describe it by features in adata.uns, "
            "named by perturbation_embeddings_key= of setup_anndata."
        )
    return known.reference.level(group.row, group.context)


def asked_perturbations(perturbation: str | Sequence[str] | None) -> dict[str | None, str | None]:
    """Return the perturbations asked for by the name of their answer; one alone has no name.

    Raises
    ------
    DataError
        If several are given and there is none, or one twice.
    """
    if isinstance(perturbation, str) or not isinstance(perturbation, Iterable):
        return {None: perturbation}
    names = [str(name) for name in perturbation]
    if len(names) != len(set(names)) or not names:
        raise DataError(f"perturbation is {names}; name at least one, and each once.")
    return {name: name for name in names}


def asked_indices(indices: Sequence[int] | NDArray | None, n_cells: int) -> NDArray[np.int64]:
    """Return the positions of the cells asked about, given as None (all), positions or a mask; DataError if unfit."""
    if indices is None:
        return np.arange(n_cells)
    array = np.asarray(indices)
    if array.dtype == bool and array.shape != (n_cells,):
        raise DataError(f"indices is a mask of shape {array.shape} for {n_cells} cells; give one value per cell.")
    if array.size and array.dtype.kind not in "biu":
        raise DataError(f"indices has type {array.dtype}; pass positions of cells or a boolean mask.")
    chosen = np.flatnonzero(array) if array.dtype == bool else array.astype(np.int64).reshape(-1)
    if len(chosen) == 0:
        raise DataError("No cells were asked about: indices is empty.")
    outside = chosen[(chosen < 0) | (chosen >= n_cells)]
    if len(outside):
        raise DataError(f"{len(outside)} indices are outside 0 .. {n_cells - 1}, first {outside[0]}.")
    if len(np.unique(chosen)) < len(chosen):
        raise DataError(
            f"indices names {len(chosen) - len(np.unique(chosen))} cells again; name each once, use n_samples."
        )
    return chosen


def check_output(output: str) -> None:
    """Refuse an output that does not exist."""
    if output not in OUTPUTS:
        raise DataError(f"output is {output!r}; choose one of {', '.join(OUTPUTS)}.")


def check_scales(heterogeneity: float, guidance_scale: float, strength: float, batch: str | None) -> None:
    """Refuse scales of an effect that are out of range, and a part of the way to another batch."""
    if not 0 <= heterogeneity <= 1:
        raise DataError(f"heterogeneity is {heterogeneity}; it must lie in [0, 1].")
    if not (np.isfinite(guidance_scale) and guidance_scale >= 0):
        raise DataError(f"guidance_scale is {guidance_scale}; pass a finite number >= 0 (1 is the flow as trained).")
    if not 0 <= strength <= _MOST_STRENGTH:
        raise DataError(f"strength is {strength}; it must lie in [0, {_MOST_STRENGTH}] (1 is the whole effect).")
    if strength != 1 and batch is not None:
        raise DataError(
            f"strength is {strength} and batch is {batch!r}: nothing lies between two batches. Ask for the batch with "
            "strength=1, and for the partial effect without batch=."
        )


def asked_groups(known: Known, own: Groups, wanted: Groups, strength: float) -> Groups:
    """Return the groups that cells are taken to: their own where no effect is asked for.

    Raises
    ------
    DataError
        If only a part of an effect is asked of cells whose own condition was not seen in their context.
    """
    if strength == 0:
        return own
    reference = known.reference
    for (group, target), rows in own.pairs(wanted).items() if strength != 1 else ():
        if group != target and reference.group(reference.condition(group.row), group.context) < 0:
            raise DataError(
                f"strength is {strength} for {len(rows)} cells of {known.vocabulary.names(group.row)[0]!r} in context "
                f"'{reference.contexts.names[group.context]}', which training did not see, so the way from there is "
                "not known. Ask it of control cells, or with strength=1."
            )
    return wanted


def _check_dose(known: Known, dose: float) -> None:
    if not known.has_doses:
        raise DataError(
            f"dose is {dose}, but no doses are registered; pass dose_key= to setup_anndata and train, or leave it."
        )
    if not np.isfinite(dose) or dose < 0:
        raise DataError(f"dose is {dose}; pass a finite number >= 0, in the unit of the data.")
