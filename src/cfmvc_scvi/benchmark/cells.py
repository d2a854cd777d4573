"""What goes into a benchmark and what comes out: labelled training counts, predictions on one of two scales."""

from __future__ import annotations

__all__ = ["ALL_GROUPS", "Prediction", "Scale", "StatedEffect", "TrainingCells", "draw_cells"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi._keys import COMBINATION_SEPARATOR
from cfmvc_scvi.benchmark.fold import split_condition
from cfmvc_scvi.errors import DataError, NonFiniteError, UnknownConditionError
from cfmvc_scvi.metrics import log_normalize
from cfmvc_scvi.shift import check_level

Array = NDArray[np.float64]

Scale: TypeAlias = Literal["counts", "log1p_cp10k"]

ALL_GROUPS = "*"  # the condition, or the context, of a score over all of them


@dataclass(frozen=True)
class StatedEffect:
    """A predicted effect with what is said of its uncertainty before the truth is seen.

    Parameters
    ----------
    effect
        Predicted difference of mean log1p CP10k from control (genes,).
    intervals
        Level, in (0, 1), to the low and high end (genes,) of intervals of the effect that as many cells as were held
        out would show.
    trust
        Score, higher for better; NaN where there is none.

    Raises
    ------
    DataError
        If shapes differ, a level is not between 0 and 1, or an interval ends before it starts.
    NonFiniteError
        If an effect is NaN or infinite.
    """

    effect: Array
    intervals: Mapping[float, tuple[Array, Array]] = field(default_factory=dict)
    trust: float = np.nan

    def __post_init__(self) -> None:
        ends = [end for interval in self.intervals.values() for end in interval]
        shapes = {np.shape(values) for values in (self.effect, *ends)}
        if len(shapes) > 1:
            raise DataError(f"an effect and its intervals have shapes {sorted(shapes)}; give the same genes.")
        if n_broken := int((~np.isfinite(self.effect)).sum()):
            raise NonFiniteError(f"{n_broken} stated effects are NaN or infinite.")
        for level, (low, high) in self.intervals.items():
            check_level(level)
            if n_empty := int((~(low <= high)).sum()):
                raise DataError(f"{n_empty} intervals of level {level} end before they start or are NaN.")


@dataclass(frozen=True)
class Prediction:
    """Predicted cells of one (condition, context).

    Parameters
    ----------
    values
        (cells, genes), sparse or dense.
    scale
        Unit of `values`: UMI counts, or log1p CP10k, which shifts produce and which is scored as it is.
    cpu_seconds
        What training and predicting took; None: to be measured by whoever asked.
    stated
        The effect as the method states it, with its uncertainty; None where it states none.
    """

    values: Any
    scale: Scale = "counts"
    cpu_seconds: float | None = None
    stated: StatedEffect | None = None

    def __post_init__(self) -> None:
        if self.scale not in ("counts", "log1p_cp10k"):
            raise DataError(f"scale is '{self.scale}'; it is 'counts' or 'log1p_cp10k'.")
        entries = self.values.data if sp.issparse(self.values) else np.asarray(self.values)
        n_broken = np.count_nonzero(entries != np.rint(entries)) if self.scale == "counts" else 0
        if n_broken:
            raise DataError(
                f"{n_broken} predicted counts are not whole numbers: means through log1p are biased. Draw counts "
                "from them, or pass log1p CP10k with scale='log1p_cp10k'."
            )

    def log_values(self) -> Array:
        """Predicted cells as dense log1p CP10k (cells, genes)."""
        if self.scale == "counts":
            return log_normalize(self.values)
        dense = self.values.toarray() if sp.issparse(self.values) else self.values
        return np.asarray(dense, dtype=np.float64)


@dataclass(frozen=True)
class TrainingCells:
    """Counts with the condition and the context of each cell.

    Parameters
    ----------
    counts
        UMI counts (cells, genes).
    condition, context
        Names, (cells,).
    control
        Name of the condition of unperturbed cells.
    genes
        Names of the genes, for baselines that look up the target of a perturbation.
    dosed
        Whether conditions are written with doses, 'A@0.5+B@1'.
    """

    counts: sp.csr_matrix
    condition: NDArray[np.str_]
    context: NDArray[np.str_]
    control: str = "control"
    genes: tuple[str, ...] = ()
    dosed: bool = False

    def __post_init__(self) -> None:
        sizes = (self.counts.shape[0], len(self.condition), len(self.context))
        if len(set(sizes)) > 1:
            raise DataError(
                f"{sizes[0]} cells, {sizes[1]} conditions and {sizes[2]} contexts; one of each per cell is needed."
            )

    def group(self, condition: str, context: str) -> sp.csr_matrix:
        """Counts of one (condition, context)."""
        return self.counts[(self.condition == condition) & (self.context == context)]

    def profile(self, condition: str, context: str) -> Array:
        """Mean log1p CP10k of one (condition, context), (genes,)."""
        return log_normalize(self.group(condition, context)).mean(axis=0)

    def has(self, condition: str, context: str) -> bool:
        """Whether there are cells of (condition, context), and control cells to compare them with."""
        inside = self.context == context
        return all((inside & (self.condition == name)).any() for name in (condition, self.control))

    def parts(self, condition: str) -> dict[str, str]:
        """Perturbations of a condition, to how each is written as a condition of its own."""
        doses = split_condition(condition, dosed=self.dosed)
        written = condition.split(COMBINATION_SEPARATOR)
        return dict(zip(doses, written, strict=True))

    def doses(self, perturbation: str, context: str) -> dict[float, str]:
        """Doses at which a single perturbation was seen in a context with control cells, to the conditions."""
        found = {}
        for name in np.unique(self.condition[self.condition != self.control]):
            parts = split_condition(str(name), dosed=self.dosed)
            dose = parts.get(perturbation)
            if len(parts) == 1 and dose is not None and self.has(str(name), context):
                found[dose] = str(name)
        return found

    def other_contexts(self, condition: str, context: str) -> list[str]:
        """Contexts other than `context` with cells of `condition` and of the control, in alphabetical order.

        Raises
        ------
        UnknownConditionError
            If there is none.
        """
        perturbed, unperturbed = (set(self.context[self.condition == c]) for c in (condition, self.control))
        found = sorted((perturbed & unperturbed) - {context})
        if not found:
            raise UnknownConditionError(
                f"No context other than '{context}' has cells of '{condition}' and of '{self.control}' to learn from."
            )
        return [str(name) for name in found]

    def other_conditions(self, condition: str, context: str) -> list[str]:
        """Perturbations other than `condition` in `context`, in alphabetical order.

        Raises
        ------
        UnknownConditionError
            If there is none.
        """
        found = sorted(set(self.condition[self.context == context]) - {condition, self.control})
        if not found:
            raise UnknownConditionError(f"Context '{context}' has no perturbation other than '{condition}'.")
        return [str(name) for name in found]


def draw_cells(counts: sp.csr_matrix, n_cells: int, rng: Generator) -> sp.csr_matrix:
    """Draw `n_cells` rows of `counts` (cells, genes) without replacement, all in random order if there are fewer.

    No cell is drawn twice: repeated cells feign a narrow distribution and strong evidence.
    """
    if counts.shape[0] == 0:
        raise DataError("There are no cells to draw from.")
    return counts[rng.permutation(counts.shape[0])[:n_cells]]
