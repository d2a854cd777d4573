"""Cells as the prediction sees them: what the networks read of them, and which group each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.data import condition_table
from cfmvc_scvi.model.networks import Inputs

__all__ = ["CellBatch", "Group", "Groups", "input_columns", "with_batch"]


@dataclass(frozen=True)
class Group:
    """A condition as a hashable key: design row, context code and batch code (-1: each cell's own)."""

    design: tuple[float, ...]
    context: int
    batch: int = -1

    @property
    def row(self) -> NDArray[np.float32]:
        """The design as an array `(perturbations,)`."""
        return np.array(self.design, dtype=np.float32)

    @property
    def is_control(self) -> bool:
        """Whether no perturbation is present."""
        return not any(self.design)

    def control(self) -> Group:
        """Return the control of the same context and batch."""
        return Group((0.0,) * len(self.design), self.context, self.batch)


@dataclass(frozen=True)
class Groups:
    """The group of each cell: distinct groups `kinds`, and `code` `(cells,)` that points to them."""

    kinds: tuple[Group, ...]
    code: NDArray[np.int64]

    @classmethod
    def of(cls, design: np.ndarray, context: np.ndarray, batch: np.ndarray) -> Groups:
        """Number the groups of cells with these designs `(cells, perturbations)`, contexts and batches `(cells,)`."""
        designs, condition = condition_table(design)
        shape = (int(context.max(initial=0)) + 1, int(batch.max(initial=-1)) + 2, len(designs))
        found, code = np.unique(np.ravel_multi_index((context, batch + 1, condition), shape), return_inverse=True)
        places = zip(*np.unravel_index(found, shape), strict=True)
        kinds = tuple(Group(tuple(map(float, designs[kind])), int(place), int(own) - 1) for place, own, kind in places)
        return cls(kinds, code.reshape(-1))

    @classmethod
    def same(cls, group: Group, n_cells: int) -> Groups:
        """Return one group for all cells."""
        return cls((group,), np.zeros(n_cells, dtype=np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Groups]) -> Groups:
        """Return the groups of the cells of all parts, in their order."""
        number: dict[Group, int] = {}
        codes = [np.array([number.setdefault(kind, len(number)) for kind in part.kinds])[part.code] for part in parts]
        return cls(tuple(number), np.concatenate(codes))

    def take(self, rows: NDArray[np.int64]) -> Groups:
        """Return the groups of these cells."""
        return Groups(self.kinds, self.code[rows])

    def pairs(self, others: Groups) -> dict[tuple[Group, Group], NDArray[np.int64]]:
        """Return the pairs of groups that occur, of these and other groups of the same cells, and their rows."""
        code = self.code * len(others.kinds) + others.code
        found = {}
        for pair in np.unique(code):
            own, other = divmod(int(pair), len(others.kinds))
            found[self.kinds[own], others.kinds[other]] = np.flatnonzero(code == pair)
        return found

    def spread(self, value: Callable[[Group], np.ndarray | float]) -> np.ndarray:
        """Return `value(group)` for the group of each cell, `(cells, ...)`."""
        return np.stack([np.asarray(value(group)) for group in self.kinds])[self.code]


@dataclass(frozen=True)
class CellBatch:
    """Cells with everything the networks read of them.

    Attributes
    ----------
    inputs
        Batch, label, covariates.
    counts
        `(cells, genes)` CSR counts.
    names
        `(cells,)` names, which key the noise.
    own, wanted
        The group of each cell, and the one asked for.
    niche
        `(cells, dims)` spatial features in the flow's coordinates, or None.
    """

    inputs: Inputs
    counts: sp.csr_matrix
    names: NDArray[np.str_]
    own: Groups
    wanted: Groups
    niche: NDArray[np.float32] | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[CellBatch]) -> CellBatch:
        """Return the cells of all parts, in their order; none may have a niche."""
        inputs = {key: np.concatenate([part.inputs[key] for part in parts]) for key in parts[0].inputs}
        counts = sp.vstack([part.counts for part in parts], format="csr")
        own, wanted = (Groups.concatenate([getattr(part, name) for part in parts]) for name in ("own", "wanted"))
        return cls(inputs, counts, np.concatenate([part.names for part in parts]), own, wanted)

    def take(self, rows: NDArray[np.int64]) -> CellBatch:
        """Return these cells."""
        inputs = {key: value[rows] for key, value in self.inputs.items()}
        niche = None if self.niche is None else self.niche[rows]
        return CellBatch(
            inputs, self.counts[rows], self.names[rows], self.own.take(rows), self.wanted.take(rows), niche
        )

    def asked(self, wanted: Groups) -> CellBatch:
        """Return the same cells, asked for under other groups."""
        return replace(self, wanted=wanted)

    def with_counts(self, counts: sp.csr_matrix) -> CellBatch:
        """Return the same cells with other counts `(cells, genes)`."""
        return replace(self, counts=counts)

    def pairs(self) -> Iterator[tuple[Group, Group, NDArray[np.int64]]]:
        """Iterate over the pairs of groups that occur: own, wanted, and the rows of their cells."""
        for (own, wanted), rows in self.own.pairs(self.wanted).items():
            yield own, wanted, rows

    def changed(self) -> NDArray[np.bool_]:
        """Return which cells are asked for under another condition than their own, `(cells,)`."""
        result = np.zeros(len(self.names), dtype=bool)
        for own, wanted, rows in self.pairs():
            result[rows] = own != wanted
        return result

    def with_wanted_batch(self) -> Inputs:
        """Return the inputs with the batch asked for where one is."""
        return with_batch(self.inputs, self.wanted.spread(lambda group: group.batch))


def input_columns(values: Any) -> NDArray:
    """Return registered values as a matrix, one row per cell, in the types of a minibatch."""
    array = np.asarray(values)
    return array.reshape(len(array), -1).astype(np.int64 if array.dtype.kind in "biu" else np.float32)


def with_batch(inputs: Inputs, batch: NDArray[np.int64]) -> Inputs:
    """Return inputs of cells with the batch codes `(cells,)`; -1 leaves the cell's own."""
    own = inputs[CFMVC_REGISTRY_KEYS.BATCH_KEY]
    asked = batch.reshape(own.shape)
    return {**inputs, CFMVC_REGISTRY_KEYS.BATCH_KEY: np.where(asked >= 0, asked, own).astype(own.dtype)}
