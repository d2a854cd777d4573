"""Which of many predicted cells to show when as many are wanted as there are real ones."""

from __future__ import annotations

__all__ = ["representative_cells"]

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cfmvc_scvi.errors import DataError

_PASSES = 3
_MOST = 3000  # cells among which is chosen; memory grows with their square


def representative_cells(values: NDArray[np.float64], n_cells: int, rng: Generator) -> NDArray[np.int64]:
    r"""Choose cells whose distribution is that of all, more closely than random ones come.

    From a random subset S, cells are exchanged as long as that lowers its energy distance from all N cells,

    .. math:: \frac{2}{n N} \sum_{i \in S} \sum_{j} |x_i - x_j| - \frac{1}{n^2} \sum_{i, k \in S} |x_i - x_k|

    so that a mean over S has several times less sampling error than over n random cells; the spread stays.

    Parameters
    ----------
    values
        log1p CP10k (cells, genes).
    n_cells
        Cells wanted.
    rng
        Draws the first subset, and 3000 cells to choose among if there are more.

    Returns
    -------
    Rows of `values` in random order; all of them if no more are wanted than there are, each once.

    Raises
    ------
    DataError
        If no cell is wanted.

    Notes
    -----
    Cost: the distances of all pairs, and three passes of n x N operations. These are support points (Mak and Joseph,
    Ann Stat 2018) among given points.
    """
    if n_cells < 1:
        raise DataError(f"n_cells is {n_cells}; at least one cell must be wanted.")
    rows = rng.permutation(len(values))
    if n_cells >= len(rows):
        return rows
    rows = rows[: max(_MOST, n_cells)]
    distances = cdist(values[rows], values[rows])
    return rows[_exchanged(distances, n_cells)]


def _exchanged(distances: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Exchange the first `n` points for others as long as the energy distance falls; returns those chosen."""
    to_all, chosen = distances.mean(axis=1), np.arange(n)
    to_chosen = distances[:, :n].sum(axis=1)
    for _ in range(_PASSES):
        before = chosen.copy()
        for place, i in enumerate(before):
            change = n * (to_all - to_all[i]) - (to_chosen - distances[i] - to_chosen[i])
            change[chosen] = np.inf
            best = int(change.argmin())
            if change[best] < 0:
                to_chosen += distances[best] - distances[i]
                chosen[place] = best
        if (chosen == before).all():
            break
    return chosen
