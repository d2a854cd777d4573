"""What goes into a benchmark and what comes out: labelled training counts, predictions on one of two scales."""

from __future__ import annotations

__all__ = ["ALL_GROUPS", "Prediction", "Scale", "TrainingCells", "draw_cells"]

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.metrics import log_normalize

Array = NDArray[np.float64]

Scale: TypeAlias = Literal["counts", "log1p_cp10k"]

ALL_GROUPS = "*"  # the condition, or the context, of a score over all of them


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
    """

    values: Any
    scale: Scale = "counts"
    cpu_seconds: float | None = None

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
    """

    counts: sp.csr_matrix
    condition: NDArray[np.str_]
    context: NDArray[np.str_]
    control: str = "control"
    genes: tuple[str, ...] = ()

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
