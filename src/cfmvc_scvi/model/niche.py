"""The neighbourhood of a cell in space, as a feature of its context."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

__all__ = ["neighbour_mean", "neighbour_weights"]

_N_NEIGHBOURS = 15


def neighbour_weights(coordinates: NDArray, slices: NDArray) -> sp.csr_matrix:
    """Return the weights of the 15 nearest neighbours of each cell, the cell itself left out, `(cells, cells)`.

    Parameters
    ----------
    coordinates
        `(cells, axes)` positions, in any unit.
    slices
        `(cells,)` codes; neighbours are sought within a slice. A cell that is alone in its slice has itself.
    """
    rows, columns = [], []
    for code in np.unique(slices):
        cells = np.flatnonzero(slices == code)
        n_neighbours = min(_N_NEIGHBOURS, len(cells) - 1)
        found = np.zeros((1, 1), dtype=np.int64)
        if n_neighbours:
            found = NearestNeighbors(n_neighbors=n_neighbours).fit(coordinates[cells]).kneighbors(return_distance=False)
        rows.append(np.repeat(cells, found.shape[1]))
        columns.append(cells[found].ravel())
    row = np.concatenate(rows)
    weight = 1 / np.bincount(row, minlength=len(slices))[row]
    return sp.csr_matrix((weight, (row, np.concatenate(columns))), shape=(len(slices), len(slices)))


def neighbour_mean(coordinates: NDArray, values: NDArray, slices: NDArray) -> NDArray:
    """Return the mean of `values` `(cells, dims)` over the nearest neighbours of each cell; see `neighbour_weights`."""
    return neighbour_weights(coordinates, slices) @ np.asarray(values, dtype=float)
