"""Real training cells that a model keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["Panel"]


@dataclass(frozen=True)
class Panel:
    """Training cells kept for prediction: reference cells of each (condition, context), and partners for their noise.

    Attributes
    ----------
    counts
        `(cells, genes)` counts: CSR, or what gives CSR rows (`data.CountRows`) of which a panel is taken.
    tensors
        What else the module reads of them (batch, labels, covariates), `(cells, columns)` each.
    names
        Names of the cells.
    condition, context
        `(cells,)` codes.
    cell
        `(cells,)` index in the training data.
    niche
        `(cells, dims)` pooled latents of the neighbours in space, where there is space.
    """

    counts: sp.csr_matrix
    tensors: dict[str, np.ndarray]
    names: NDArray[np.str_]
    condition: NDArray[np.int64]
    context: NDArray[np.int64]
    cell: NDArray[np.int64]
    niche: NDArray[np.float32] | None = None

    def rows(self, condition: int, context: int) -> NDArray[np.int64]:
        """Return the rows of a group."""
        return np.flatnonzero((self.condition == condition) & (self.context == context))

    def take(self, rows: NDArray[np.int64]) -> Panel:
        """Return these rows."""
        tensors = {key: value[rows] for key, value in self.tensors.items()}
        niche = None if self.niche is None else self.niche[rows]
        codes = (self.condition[rows], self.context[rows], self.cell[rows])
        return Panel(self.counts[rows], tensors, self.names[rows], *codes, niche)
