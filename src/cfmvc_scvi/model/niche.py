"""The neighbourhood of a cell in space, as a feature of its context."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

__all__ = ["neighbour_mean"]

_N_NEIGHBOURS = 15


def neighbour_mean(coordinates: NDArray, values: NDArray, slices: NDArray) -> NDArray:
    """Return the mean of `values` over the nearest neighbours of each cell, the cell itself left out.

    Parameters
    ----------
    coordinates
        `(cells, axes)` positions, in any unit.
    values
        `(cells, dims)`.
    slices
        `(cells,)` codes; neighbours are sought within a slice. A cell that is alone in its slice keeps its own value.
    """
    pooled = np.array(values, dtype=float)
    for code in np.unique(slices):
        cells = np.flatnonzero(slices == code)
        if len(cells) > 1:
            n_neighbours = min(_N_NEIGHBOURS, len(cells) - 1)
            found = NearestNeighbors(n_neighbors=n_neighbours).fit(coordinates[cells]).kneighbors(return_distance=False)
            pooled[cells] = values[cells][found].mean(axis=1)
    return pooled
