"""Pseudo-bulk profiles of groups of cells with the sampling variances of their means."""

from __future__ import annotations

__all__ = ["DEPTH_LEVELS", "PseudoBulk", "expected_noise", "pseudo_bulk"]

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError

Array = NDArray[np.float64]

DEPTH_LEVELS = np.linspace(0.02, 0.98, 30)
_SCALE = 1e4  # counts per 10k
_TREND_SHARE = 0.3
_TREND_WINDOW = 25
_BLOCK = 1 << 23  # cells x genes summed at a time


@dataclass(frozen=True)
class PseudoBulk:
    """Means of groups of cells in two links, with their sampling variances.

    A group without cells has NaN in every row and zero `n_cells`.

    Parameters
    ----------
    log_mean
        Mean of log1p(counts per 10k) over the cells of a group, (groups, genes).
    log_noise
        Sampling variance of `log_mean`, (groups, genes).
    rate
        Counts per 10k of the summed cells of a group, (groups, genes).
    rate_noise
        Sampling variance of `rate`, (groups, genes).
    n_cells
        Cells per group, (groups,).
    depth_quantiles
        Quantiles of the cells' total counts at `DEPTH_LEVELS`, (groups, 30).
    """

    log_mean: Array
    log_noise: Array
    rate: Array
    rate_noise: Array
    n_cells: NDArray[np.int64]
    depth_quantiles: Array

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.n_cells)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return self.log_mean.shape[1]

    def take(self, groups: ArrayLike) -> PseudoBulk:
        """Rows `groups` (indices or a boolean mask, in that order) as a new object."""
        return PseudoBulk(**{f.name: getattr(self, f.name)[np.asarray(groups)] for f in fields(self)})

    def take_genes(self, genes: ArrayLike) -> PseudoBulk:
        """Columns `genes` (indices or a boolean mask, in that order) as a new object; depths stay as they are."""
        chosen = np.asarray(genes)
        levels = {name: getattr(self, name)[:, chosen] for name in ("log_mean", "log_noise", "rate", "rate_noise")}
        return PseudoBulk(**levels, n_cells=self.n_cells, depth_quantiles=self.depth_quantiles)

    @staticmethod
    def concatenate(parts: Sequence[PseudoBulk]) -> PseudoBulk:
        """Groups of all `parts`, one after the other; the parts have the same genes."""
        if not parts:
            raise DataError("Nothing to concatenate: pass at least one PseudoBulk.")
        sizes = sorted({part.n_genes for part in parts})
        if len(sizes) > 1:
            raise DataError(f"The parts have different numbers of genes: {sizes}. Bring them to the same genes first.")
        return PseudoBulk(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(PseudoBulk)})


def pseudo_bulk(counts: Any, groups: ArrayLike, n_groups: int) -> PseudoBulk:
    r"""Means of log1p(CP10k) and bulk CP10k of each group, and their sampling variances.

    With depth l_i, y_i = log1p(1e4 x_i / l_i) and n cells, log_mean = mean y and rate = 1e4 sum x / sum l. The
    variance of a cell's value, v, is the sample variance of y, or of the ratio estimator's terms (1e4 x_i - rate l_i)
    / mean l, but never below that of a Poisson count at the group's depth, half a count added; it is shrunk, .7 v +
    .3 trend(mean), towards its running mean over genes of similar mean. The noise is v / n.

    Parameters
    ----------
    counts
        UMI counts (cells, genes), sparse or dense, or what gives such rows by slices: read in blocks, as a file need
        not fit in memory; never made dense.
    groups
        Group of each cell, 0 .. n_groups - 1, (cells,).
    n_groups
        Number of groups, those without cells included.

    Raises
    ------
    DataError
        If shapes or group indices do not fit.

    Notes
    -----
    Cost: one pass over the non-zeros, memory for some blocks of them and for `n_groups` x genes. The trend follows
    limma-trend (Law et al. 2014, Genome Biol 15:R29).
    """
    matrix = counts.tocsr() if sp.issparse(counts) else counts
    index = np.asarray(groups)
    _check_groups(matrix.shape, index, n_groups)
    n = np.bincount(index, minlength=n_groups)
    depth = np.empty(len(index))
    sums = _Sums.zero(n_groups, matrix.shape[1])
    step = max(1, _BLOCK // max(matrix.shape[1], 1), 2 * n_groups)  # a block also adds to the sums of all groups
    for start in range(0, len(index), step):
        rows = slice(start, start + step)
        depth[rows] = sums.add(matrix[rows], index[rows])
    size = np.where(n > 0, n, np.nan)[:, None]
    mean_depth = sums.depth[:, None] / size

    log_mean = sums.log / size
    log_sum_of_squares = sums.log_squares - size * log_mean**2

    rate = _SCALE * sums.counts / (size * mean_depth)
    squares, cross = sums.squares * _SCALE**2, sums.by_depth * _SCALE
    rate_sum_of_squares = (squares - 2 * rate * cross + rate**2 * sums.squared_depth[:, None]) / mean_depth**2

    per_count = _SCALE / mean_depth
    least = rate + 0.5 * per_count / size  # half a count in the whole group: a gene not seen is not known to be absent
    rate_floor = per_count * least
    log_floor = np.minimum(least / per_count * np.log1p(per_count) ** 2, rate_floor / (1 + least) ** 2)
    return PseudoBulk(
        log_mean=log_mean,
        log_noise=_noise(log_mean, log_sum_of_squares, log_floor, n),
        rate=rate,
        rate_noise=_noise(rate, rate_sum_of_squares, rate_floor, n),
        n_cells=n,
        depth_quantiles=_depth_quantiles(depth, index, n_groups),
    )


def expected_noise(bulk: PseudoBulk, level: Array, n_cells: float) -> Array:
    """Sampling variance of the mean log1p CP10k of new cells at a level, by the trend of variance in the mean.

    Unlike the variance of control cells it is right for genes that switch on.

    Parameters
    ----------
    bulk
        Groups whose cells are like the new ones, such as those of the same perturbation elsewhere; all genes of all
        groups with cells make the trend, constant beyond their range.
    level
        Mean log1p CP10k that is expected (genes,).
    n_cells
        New cells.

    Raises
    ------
    DataError
        If no group has cells, or there is less than one new cell.
    """
    groups = np.flatnonzero(bulk.n_cells)
    if not len(groups) or n_cells < 1:
        raise DataError(f"{len(groups)} groups with cells and {n_cells} new cells; at least one of each is needed.")
    mean = bulk.log_mean[groups].ravel()
    variance = (bulk.log_noise * bulk.n_cells[:, None])[groups].ravel()
    order = np.argsort(mean, kind="stable")
    return np.interp(level, mean[order], _trend(mean, variance)[order]) / n_cells


@dataclass
class _Sums:
    """Sums over the cells of each group: logs, counts, their squares, counts times depth, depths and their squares."""

    log: Array
    log_squares: Array
    counts: Array
    squares: Array
    by_depth: Array
    depth: Array
    squared_depth: Array

    @classmethod
    def zero(cls, n_groups: int, n_genes: int) -> _Sums:
        """Return sums over no cells."""
        log, log_squares, counts, squares, by_depth = np.zeros((5, n_groups, n_genes))
        return cls(log, log_squares, counts, squares, by_depth, np.zeros(n_groups), np.zeros(n_groups))

    def add(self, counts: Any, index: NDArray[np.int64]) -> Array:
        """Add cells, and return their depths."""
        matrix = sp.csr_matrix(counts, dtype=np.float64, copy=True)  # scipy sorts indices in place, also shared ones
        depth = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
        cell, shape = np.arange(len(index)), (len(self.depth), len(index))
        members = sp.csr_matrix((np.ones(len(index)), (index, cell)), shape=shape)
        self.depth += members @ depth
        self.squared_depth += members @ depth**2
        self.counts += (members @ matrix).toarray()
        self.by_depth += (sp.csr_matrix((depth, (index, cell)), shape=shape) @ matrix).toarray()
        logs = matrix.copy()
        logs.data = np.log1p(logs.data * np.repeat(_SCALE / depth, np.diff(matrix.indptr)))
        self.log += (members @ logs).toarray()
        logs.data **= 2
        self.log_squares += (members @ logs).toarray()
        matrix.data **= 2
        self.squares += (members @ matrix).toarray()
        return depth


def _check_groups(shape: tuple[int, ...], index: NDArray[np.int64], n_groups: int) -> None:
    """Raise unless every cell has a group between 0 and n_groups - 1."""
    if index.shape != shape[:1]:
        raise DataError(f"groups has shape {index.shape}, expected ({shape[0]},): one group index per cell.")
    if not np.issubdtype(index.dtype, np.integer):
        raise DataError(f"groups has dtype {index.dtype}; pass integer indices 0 .. n_groups - 1.")
    outside = int(np.sum((index < 0) | (index >= n_groups)))
    if outside:
        raise DataError(f"{outside} cells have a group outside 0 .. {n_groups - 1}; drop them or raise n_groups.")


def _noise(mean: Array, sum_of_squares: Array, floor: Array, n: NDArray[np.int64]) -> Array:
    """Sampling variance of group means: sample variance, at least `floor`, shrunk to its trend, over n."""
    noise = np.full_like(mean, np.nan)
    for group in np.flatnonzero(n):
        sample = sum_of_squares[group] / max(n[group] - 1, 1)
        variance = np.maximum(sample, floor[group])
        noise[group] = ((1 - _TREND_SHARE) * variance + _TREND_SHARE * _trend(mean[group], variance)) / n[group]
    return noise


def _trend(mean: Array, variance: Array) -> Array:
    """Running mean of the variance over genes ordered by mean; genes of equal mean share one value."""
    order = np.lexsort((variance, mean))
    n = len(mean)
    width = max(_TREND_WINDOW, n // 50)
    total = np.concatenate([[0.0], np.cumsum(variance[order])])
    start = np.clip(np.arange(n) - width, 0, None)
    stop = np.clip(np.arange(n) + width, None, n)
    running = (total[stop] - total[start]) / (stop - start)
    _, level = np.unique(mean[order], return_inverse=True)
    trend = np.empty_like(variance)
    trend[order] = (np.bincount(level, weights=running) / np.bincount(level))[level]
    return trend


def _depth_quantiles(depth: Array, index: NDArray[np.int64], n_groups: int) -> Array:
    """Quantiles of depth per group, (groups, len(DEPTH_LEVELS))."""
    quantiles = np.full((n_groups, len(DEPTH_LEVELS)), np.nan)
    for group in np.unique(index):
        quantiles[group] = np.quantile(depth[index == group], DEPTH_LEVELS)
    return quantiles
