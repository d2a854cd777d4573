"""Cells as the prediction sees them: what the module reads of them, and which group each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from torch import Tensor

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.data import condition_table
from cfmvc_scvi.model.panel import Panel

__all__ = ["CellBatch", "Group", "Groups", "module_tensors", "panel_tensors"]


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
    """Cells with everything the module reads of them.

    Attributes
    ----------
    tensors
        A minibatch of the registered data.
    counts
        `(cells, genes)` CSR counts.
    names
        `(cells,)` names, which key the noise.
    own, wanted
        The group of each cell, and the one asked for.
    niche
        `(cells, dims)` spatial features in the flow's coordinates, or None.
    """

    tensors: dict[str, Tensor]
    counts: sp.csr_matrix
    names: NDArray[np.str_]
    own: Groups
    wanted: Groups
    niche: NDArray[np.float32] | None = None

    def take(self, rows: NDArray[np.int64]) -> CellBatch:
        """Return these cells."""
        tensors = {key: value[rows] for key, value in self.tensors.items()}
        niche = None if self.niche is None else self.niche[rows]
        return CellBatch(
            tensors, self.counts[rows], self.names[rows], self.own.take(rows), self.wanted.take(rows), niche
        )

    def asked(self, wanted: Groups) -> CellBatch:
        """Return the same cells, asked for under other groups."""
        return replace(self, wanted=wanted)

    def with_counts(self, counts: sp.csr_matrix) -> CellBatch:
        """Return the same cells with other counts `(cells, genes)`."""
        dense = self.tensors[REGISTRY_KEYS.X_KEY].new_tensor(counts.toarray())
        return replace(self, counts=counts, tensors={**self.tensors, REGISTRY_KEYS.X_KEY: dense})

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

    def with_wanted_batch(self) -> dict[str, Tensor]:
        """Return the tensors with the batch asked for where one is."""
        own = self.tensors[REGISTRY_KEYS.BATCH_KEY]
        asked = (
            torch.as_tensor(self.wanted.spread(lambda group: group.batch), device=own.device).reshape(own.shape).to(own)
        )
        return {**self.tensors, REGISTRY_KEYS.BATCH_KEY: torch.where(asked >= 0, asked, own)}


def panel_tensors(panel: Panel, group: Group, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return panel cells as a minibatch that the module can read."""
    arrays = {key: torch.as_tensor(value) for key, value in panel.tensors.items()}
    arrays[REGISTRY_KEYS.X_KEY] = torch.as_tensor(panel.counts.toarray())
    arrays[CFMVC_REGISTRY_KEYS.PERTURBATION_KEY] = torch.as_tensor(np.tile(group.row, (panel.counts.shape[0], 1)))
    return module_tensors(arrays, device, dtype)


def module_tensors(tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a minibatch on a device, what is not a code in the given precision."""
    return {
        key: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for key, value in tensors.items()
    }
