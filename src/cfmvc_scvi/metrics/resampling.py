"""Energy distances of several predictions for the same cells, with bootstrap resamples of all cells."""

from __future__ import annotations

__all__ = ["EnergyBootstrap", "bootstrap_energy"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values, same_genes


@dataclass(frozen=True)
class EnergyBootstrap:
    """Energy distances of k sets of cells from one target.

    Parameters
    ----------
    estimate
        Unbiased distances, (k,).
    resampled
        Distances of resamples, (resamples, k): in a row, all sets have the same cells and the target the same.
    """

    estimate: Array
    resampled: Array

    def interval(self, level: float) -> tuple[Array, Array]:
        """Percentile interval of each distance, (k,) and (k,)."""
        low, high = np.quantile(self.resampled, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        return low, high


def bootstrap_energy(
    sets: Sequence[ArrayLike], target: ArrayLike, rng: Generator, n_resamples: int = 200
) -> EnergyBootstrap:
    r"""Energy distance of each of several sets of cells from a target, and how it varies over resampled cells.

    The sets are the same cells in the same order, each under another condition: a resample draws cells, and takes these
    cells in every set, so that differences between sets are known better than each distance. With the number of times
    w (of n cells) and v (of m target cells) that cells were drawn,

    .. math:: 2 \frac{w^\top D_{xy} v}{nm} - \frac{w^\top D_{xx} w}{n^2 - |w|^2} - \frac{v^\top D_{yy} v}{m^2 - |v|^2}

    which for w = v = 1 is `energy_distance`, and which a cell drawn twice does not bias.

    Parameters
    ----------
    sets
        Cells (cells, dimensions), all of the same shape.
    target
        Cells (target cells, dimensions).
    rng
        Draws the cells.
    n_resamples
        Number of resamples.

    Raises
    ------
    DataError
        If there is no set, shapes differ, a population has fewer than two cells, or there is no resample.

    Notes
    -----
    Cost: the square of the number of cells, in memory and for each resample.
    """
    if not len(sets) or n_resamples < 1:
        raise DataError(f"{len(sets)} sets of cells and {n_resamples} resamples; there must be at least one of each.")
    truth = cell_values("target", target, min_cells=2)
    values = [cell_values(f"set {number}", cells, min_cells=2) for number, cells in enumerate(sets)]
    same_genes(target=truth, **{f"set {number}": cells for number, cells in enumerate(values)})
    sizes = sorted({len(cells) for cells in values})
    if len(sizes) > 1:
        raise DataError(f"The sets have between {sizes[0]} and {sizes[-1]} cells; they must be the same cells.")
    n, m = len(values[0]), len(truth)
    drawn, drawn_truth = (
        np.vstack([np.ones(size), rng.multinomial(size, np.full(size, 1 / size), n_resamples)]) for size in (n, m)
    )
    within_truth = _within(drawn_truth, cdist(truth, truth))
    distances = np.stack(
        [
            2 * np.einsum("ri,ij,rj->r", drawn, cdist(cells, truth), drawn_truth, optimize=True) / (n * m)
            - _within(drawn, cdist(cells, cells))
            - within_truth
            for cells in values
        ],
        axis=1,
    )
    return EnergyBootstrap(distances[0], distances[1:])


def _within(drawn: Array, distance: Array) -> Array:
    """Mean distance of pairs of different cells, counted as often as they were drawn, (resamples,)."""
    total = ((drawn @ distance) * drawn).sum(axis=1)
    return total / (drawn.sum(axis=1) ** 2 - (drawn**2).sum(axis=1))
