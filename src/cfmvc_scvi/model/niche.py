"""The neighbourhood of a cell in space, as a feature of its context."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from cfmvc_scvi.errors import DataError

__all__ = ["Niche", "neighbour_weights", "niche_features", "niche_width"]

Niche: TypeAlias = Literal["neighbours", "messages", "coordinates"]
_N_NEIGHBOURS = 15
_ROUNDS = 3  # of messages


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


def niche_width(niche: Niche, n_latent: int, n_axes: int) -> int:
    """Return the number of features of a niche, 0 without coordinates (`n_axes` 0).

    Raises
    ------
    DataError
        If the niche is not known, or another than the default is asked for without coordinates.
    """
    if niche not in get_args(Niche):
        raise DataError(f"niche is {niche!r}; choose one of {', '.join(get_args(Niche))}.")
    if not n_axes and niche != get_args(Niche)[0]:
        raise DataError(f"niche={niche!r} needs coordinates; pass spatial_key= to setup_anndata, or leave it out.")
    if not n_axes:
        return 0
    return {"neighbours": n_latent, "messages": _ROUNDS * n_latent, "coordinates": n_axes}[niche]


def niche_features(niche: Niche, coordinates: NDArray, values: NDArray, slices: NDArray) -> NDArray[np.float32]:
    """Return what is known of the place of each cell, `(cells, niche_width)`.

    Parameters
    ----------
    niche
        ``"neighbours"``: the mean of `values` over the nearest neighbours (`neighbour_weights`). ``"messages"``: these
        means, and those of two more rounds, each of which passes on what lies one neighbourhood further; what comes
        back to a cell of its own state is left out, or a cell would tell the flow what it is. ``"coordinates"``: the
        coordinates, centred and of unit variance in each slice.
    coordinates
        `(cells, axes)` positions, in any unit.
    values
        `(cells, dims)` states of the cells.
    slices
        `(cells,)` codes.
    """
    if niche == "coordinates":
        result = np.empty(coordinates.shape)
        for code in np.unique(slices):
            mine = coordinates[slices == code]
            spread = mine.std(axis=0)
            result[slices == code] = (mine - mine.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return result.astype(np.float32)
    pool, states = neighbour_weights(coordinates, slices), np.asarray(values, dtype=float)
    reach, rounds = pool, [pool @ states]
    for _ in range(0 if niche == "neighbours" else _ROUNDS - 1):
        reach = (pool @ reach).tocsr()
        reach = reach - sp.diags(reach.diagonal())
        total = np.asarray(reach.sum(axis=1)).ravel()
        reach = sp.diags(1 / np.where(total > 0, total, 1.0)) @ reach
        rounds.append(reach @ states)
    return np.hstack(rounds).astype(np.float32)
