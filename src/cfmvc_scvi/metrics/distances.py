"""Distances between distributions of predicted and of real cells, unbiased, on a scale from real halves to controls."""

from __future__ import annotations

__all__ = [
    "CrossFittedPCA",
    "DistanceRatio",
    "HeldOutHalf",
    "energy_distance",
    "median_bandwidths",
    "normalised_distance",
    "normalised_energy",
    "normalised_mmd",
    "rbf_mmd2",
]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics._checks import Array, cell_values, same_genes

_BANDWIDTH_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_CELLS_PER_COMPONENT = 4


def _sum_over_pairs(x: Array, y: Array, of_distance: Callable[[Array], Array], chunk_size: int) -> float:
    return sum(float(of_distance(cdist(x[i : i + chunk_size], y)).sum()) for i in range(0, len(x), chunk_size))


def _pair(x: ArrayLike, y: ArrayLike, chunk_size: int) -> tuple[Array, Array]:
    a, b = cell_values("x", x, min_cells=2), cell_values("y", y, min_cells=2)
    same_genes(x=a, y=b)
    if chunk_size < 1:
        raise DataError(f"chunk_size is {chunk_size}; it must be at least 1.")
    return a, b


def energy_distance(x: ArrayLike, y: ArrayLike, chunk_size: int = 2048) -> float:
    """Unbiased Euclidean energy distance, 2 E|x - y| - E|x - x'| - E|y - y'|, over pairs of different cells.

    Parameters
    ----------
    x, y
        Cells (cells, dimensions).
    chunk_size
        Cells of `x` whose distances are in memory at once.

    Returns
    -------
    In the unit of the data; its expectation is 0 for two samples of one distribution, so it can be slightly negative.

    Raises
    ------
    DataError
        If a group has fewer than two cells, or the dimensions differ.

    Notes
    -----
    U-statistics of Szekely and Rizzo 2013 (J Stat Plan Inference 143:1249). With squared norms it would be 2 |mean
    difference|^2, blind to spread.
    """
    a, b = _pair(x, y, chunk_size)

    def total(u: Array, v: Array) -> float:
        return _sum_over_pairs(u, v, lambda distance: distance, chunk_size)

    n, m = len(a), len(b)
    return 2 * total(a, b) / (n * m) - total(a, a) / (n * (n - 1)) - total(b, b) / (m * (m - 1))


def median_bandwidths(x: ArrayLike, factors: Sequence[float] = _BANDWIDTH_FACTORS) -> Array:
    """Kernel bandwidths: the median distance between different cells of `x` (cells, dimensions), times each factor."""
    values = cell_values("x", x, min_cells=2)
    median = np.median(cdist(values, values)[np.triu_indices(len(values), k=1)])
    if not median > 0:
        raise DataError(
            "More than half of the distances between cells are zero: there is no bandwidth to take from them."
        )
    return median * np.asarray(factors, dtype=np.float64)


def rbf_mmd2(x: ArrayLike, y: ArrayLike, bandwidths: ArrayLike, chunk_size: int = 2048) -> float:
    """Unbiased squared maximum mean discrepancy, E k(x, x') + E k(y, y') - 2 E k(x, y), over pairs of different cells.

    k is the mean over bandwidths h of exp(-|x - y|^2 / 2 h^2) (Gretton et al. 2012, JMLR 13:723, eq. 3).

    Parameters
    ----------
    x, y
        Cells (cells, dimensions).
    bandwidths
        Positive lengths h; take them from real cells (`median_bandwidths`), never from the prediction.
    chunk_size
        Cells of `x` whose distances are in memory at once.

    Raises
    ------
    DataError
        If a group has fewer than two cells, the dimensions differ, or a bandwidth is not positive.
    """
    a, b = _pair(x, y, chunk_size)
    widths = np.atleast_1d(np.asarray(bandwidths, dtype=np.float64))
    if widths.size == 0 or not (widths > 0).all():
        raise DataError(f"bandwidths are {widths.tolist()}; pass one or more positive lengths.")

    def total(u: Array, v: Array) -> float:
        return _sum_over_pairs(
            u, v, lambda distance: np.mean([np.exp(-0.5 * (distance / h) ** 2) for h in widths], axis=0), chunk_size
        )

    n, m = len(a), len(b)
    within_a, within_b = (total(a, a) - n) / (n * (n - 1)), (total(b, b) - m) / (m * (m - 1))
    return within_a + within_b - 2 * total(a, b) / (n * m)


class HeldOutHalf(NamedTuple):
    """Principal components fitted on one half of the real cells, and the other half in them."""

    pca: PCA
    bandwidths: Array  # of the half that was fitted
    truth: Array  # (cells, components)
    control: Array  # (cells, components)


@dataclass(frozen=True)
class CrossFittedPCA:
    """Two PCA spaces, each fitted on one half of the real cells (perturbed and control) and scored on the other half.

    A PCA fitted on the cells being scored overfits their noise and exaggerates distances to all others.

    Parameters
    ----------
    halves
        The two spaces with their held-out cells.
    """

    halves: tuple[HeldOutHalf, HeldOutHalf]

    @staticmethod
    def fit(truth: ArrayLike, control: ArrayLike, rng: Generator, *, n_components: int = 30) -> CrossFittedPCA:
        """Split `truth` and `control` (cells, genes) at random into halves and fit a PCA on each half.

        Parameters
        ----------
        truth, control
            log1p CP10k of the real perturbed and the real control cells of one context.
        rng
            Splits the cells and seeds the PCA.
        n_components
            Dimensions; at most a quarter of the cells of a half, for more of them are noise of those cells.

        Raises
        ------
        DataError
            If a group has fewer than four cells, the genes differ, or `n_components` is below 1.
        """
        t, c = cell_values("truth", truth, min_cells=4), cell_values("control", control, min_cells=4)
        same_genes(truth=t, control=c)
        if n_components < 1:
            raise DataError(f"n_components is {n_components}; it must be at least 1.")
        t, c = t[rng.permutation(len(t))], c[rng.permutation(len(c))]
        (t1, t2), (c1, c2) = np.array_split(t, 2), np.array_split(c, 2)
        seed = int(rng.integers(2**31))

        def space(fit_on: Array, held_truth: Array, held_control: Array) -> HeldOutHalf:
            rank = min(n_components, max(2, len(fit_on) // _CELLS_PER_COMPONENT), fit_on.shape[1])
            pca = PCA(rank, random_state=seed).fit(fit_on)
            widths = median_bandwidths(pca.transform(fit_on))
            return HeldOutHalf(pca, widths, pca.transform(held_truth), pca.transform(held_control))

        return CrossFittedPCA((space(np.vstack([t1, c1]), t2, c2), space(np.vstack([t2, c2]), t1, c1)))


class DistanceRatio(NamedTuple):
    """A distance on the scale from real halves (0) to controls (1); over groups add up both parts, then divide.

    The mean of ratios is dominated by groups that hardly respond: use the ratio of sums.
    """

    distance: float  # of the prediction from the held-out real cells
    scale: float  # of the held-out control cells from the held-out real cells

    @property
    def value(self) -> float:
        """`distance` over `scale`; NaN, not defined, where the controls are not further away than another half."""
        return self.distance / self.scale if self.scale > 0 else float("nan")


def normalised_distance(
    predicted: ArrayLike, spaces: CrossFittedPCA, distance: Callable[[Array, Array, Array], float]
) -> DistanceRatio:
    """Distance of predicted cells from held-out real cells and its scale, the mean over both halves of `spaces`.

    Parameters
    ----------
    predicted
        log1p CP10k of predicted cells (cells, genes).
    spaces
        From the real cells of the same (condition, context).
    distance
        Function of two sets of cells (cells, components) and the bandwidths of the space, with expectation 0 for two
        samples of one distribution: what two halves of the real cells have. `predicted` may contain control cells that
        the PCA has seen, so that "no change" itself scores slightly below 1 (.94 on a few hundred cells).
    """
    values = cell_values("predicted", predicted, min_cells=2)
    parts = []
    for half in spaces.halves:
        if values.shape[1] != half.pca.n_features_in_:
            raise DataError(f"predicted has {values.shape[1]} genes, the real cells had {half.pca.n_features_in_}.")
        cells = half.pca.transform(values)
        parts.append(
            (distance(cells, half.truth, half.bandwidths), distance(half.control, half.truth, half.bandwidths))
        )
    return DistanceRatio(*(float(part) for part in np.mean(parts, axis=0)))


def normalised_energy(
    predicted: ArrayLike, truth: ArrayLike, control: ArrayLike, rng: Generator, *, n_components: int = 30
) -> DistanceRatio:
    """Energy distance of the prediction, 0 = two halves of the real cells, 1 = control cells used as the prediction.

    All cells are log1p CP10k (cells, genes) of one (condition, context); see `CrossFittedPCA.fit` for the rest and for
    errors.
    """
    spaces = CrossFittedPCA.fit(truth, control, rng, n_components=n_components)
    return normalised_distance(predicted, spaces, lambda x, y, _: energy_distance(x, y))


def normalised_mmd(
    predicted: ArrayLike, truth: ArrayLike, control: ArrayLike, rng: Generator, *, n_components: int = 30
) -> DistanceRatio:
    """Squared multi-bandwidth MMD of the prediction on the scale of `normalised_energy`, with the same parameters."""
    spaces = CrossFittedPCA.fit(truth, control, rng, n_components=n_components)
    return normalised_distance(predicted, spaces, rbf_mmd2)
