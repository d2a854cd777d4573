"""Gene rates at which coupled counts of reference cells have a given mean log1p CP10k."""

from __future__ import annotations

__all__ = ["RateMatch", "match_rates"]

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe._counts import CP10K, Array, count_matrix, depth_of, gene_vector, uniform_matrix, uniforms_at
from cfmvc_scvi.observe._prepared import PreparedCells, Tally
from cfmvc_scvi.observe.coupling import profile_pair
from cfmvc_scvi.observe.curve import expected_log1p_curve

_NARROW = 1e-5  # relative width of a bracket
_FEW = 0.1  # share of genes off their goal at which it pays to move the depth level
_MOST_FEEDBACK = 0.9  # bounds the Newton step of the depth level to ten times the gap
_LARGEST_RATE = 1e5  # CP10k; ten times the depth of the cell in one gene
_GRID = np.concatenate([[0.0], np.geomspace(1e-6, _LARGEST_RATE, 160)])


@dataclass(frozen=True)
class RateMatch:
    """Gene rates of a (condition, context), and how well they reach the goal on the reference cells.

    Parameters
    ----------
    rate
        Counts per 10k, the `target_rate` of `couple_counts`, (genes,).
    achieved
        Mean log1p(counts per 10k) of the reference cells' coupled counts, (genes,).
    converged
        Whether `achieved` is within the tolerance, or within the mean step that one more count in one cell makes, or
        on the nearer side of a larger step, (genes,).
    n_iterations
        Evaluations of the coupled counts.
    """

    rate: Array
    achieved: Array
    converged: NDArray[np.bool_]
    n_iterations: int


def match_rates(
    counts: sp.spmatrix,
    goal: ArrayLike,
    own_rate: ArrayLike,
    theta: ArrayLike,
    thinning_uniforms: ArrayLike,
    superposition_uniforms: ArrayLike,
    profiles: tuple[ArrayLike, ArrayLike] | None = None,
    config: ObservationConfig | None = None,
    depth_change: float = 0.0,
) -> RateMatch:
    """Rates at which the coupled counts of these cells have mean log1p CP10k equal to `goal`, gene by gene.

    With the uniforms fixed and at given depths, a gene's mean is a monotone step function of its rate. Its root is
    bracketed and sought by false position in the expected curve of the rate, in which the mean is nearly linear, until
    the mean is within the tolerance or the ends of the bracket differ by one count. Only genes off their goal are
    coupled anew.

    The depths are those of the new counts, so that all genes depend on all. Their ratios between cells follow the
    counts; their level, the mean log depth, is held while genes are sought and then moved by Newton's method. Goals
    whose CP10k do not add up to 1e4 ask for a change of depth, in dense data without bound; further than
    `match_depth_change` from the depth expected it is refused, and rates are those that reach the goal at the depth
    allowed.

    Parameters
    ----------
    counts
        UMI counts of the reference control cells, sparse (cells, genes).
    goal
        Mean log1p(counts per 10k), finite, (genes,); below zero is read as zero.
    own_rate, theta, thinning_uniforms, superposition_uniforms
        As in `couple_counts`; the own rate of all cells, (genes,).
    profiles
        Rates of each cell relative to the context's, as it is and as it becomes, (cells, genes) each; by default all
        are 1.
    config
        `match_iterations`, `match_tolerance`, `match_depth_change` and `depth_levels`.
    depth_change
        Expected change of the mean log depth. The goal is one at the depths of the cells as they are; it is met as the
        same expression appears at the depths expected, by the curve of `expected_log1p_curve`.

    Returns
    -------
    Rates, their means and convergence. A gene already at its goal keeps its own rate exactly; a goal of zero has rate
    0; goals that cannot be reached are not converged.

    Raises
    ------
    DataError
        If there is no cell, shapes differ or a value is out of range.

    Notes
    -----
    Deterministic. Cost: some twenty evaluations of ever fewer genes; about 0.2 s for 200 cells x 1,300 genes.
    """
    settings = config or ObservationConfig()
    matrix = count_matrix(counts)
    if not matrix.shape[0]:
        raise DataError("There is no reference cell to match rates on; use rates_of_expected_log1p.")
    n_genes = matrix.shape[1]
    at_counts = uniforms_at("thinning_uniforms", thinning_uniforms, matrix)
    thinning = sp.csr_matrix((at_counts, matrix.indices, matrix.indptr), matrix.shape)
    cells = PreparedCells(
        matrix.tocsc(),
        gene_vector("own_rate", own_rate, n_genes),
        gene_vector("theta", theta, n_genes, positive=True),
        thinning.tocsc().data,
        uniform_matrix("superposition_uniforms", superposition_uniforms, matrix.shape),
        profile_pair(profiles, matrix.shape),
    )
    search = _Search(cells, gene_vector("goal", np.maximum(goal, 0), n_genes), settings, depth_change)
    while search.n_iterations < settings.match_iterations:
        genes = search.pending()
        if genes.size <= _FEW * n_genes and search.depth_is_off():
            search.follow_depth()
        elif genes.size:
            search.evaluate(genes, search.proposal(genes))
        elif (genes := search.unsettled()).size:
            search.settle(genes)
        else:
            break
    return search.result()


class _Search:
    """State of the matching: current rates and counts, and a bracket around the root of each gene."""

    def __init__(self, cells: PreparedCells, goal: Array, settings: ObservationConfig, depth_change: float) -> None:
        self.cells, self.depth_change = cells, settings.match_depth_change
        self.rate = cells.own_rate.copy()
        depth = depth_of(cells.counts)
        size = np.full(len(_GRID), np.median(cells.theta))
        self.curve = expected_log1p_curve(_GRID, depth, size, settings)
        if depth_change:
            factor = np.exp(depth_change)
            level = np.interp(goal, self.curve, _GRID)
            # the rates of counts are in units of the depth before, of which the new depths have `factor`
            self.curve = expected_log1p_curve(_GRID / factor, depth * factor, size, settings)
            goal, depth = np.interp(level * factor, _GRID, self.curve), depth * factor
        self.goal = goal
        self.tally = Tally(cells.counts.T)
        self.slope = np.gradient(self.curve[1:], np.log(_GRID[1:]))
        self.depth = np.maximum(depth, 1.0)
        self.level = self.own_level = np.log(self.depth).mean()
        self.gap = 0.0
        self.error = self._mean_log1p() - goal
        self.n_iterations = 1
        step = np.log1p(CP10K / self.depth).mean() / len(depth)  # one more count in one cell
        self.tolerance = max(settings.match_tolerance, step)
        self.allowed = np.zeros(len(goal))
        self.low, self.low_error, self.low_count = (np.empty(len(goal)) for _ in range(3))
        self.high, self.high_error, self.high_count = (np.empty(len(goal)) for _ in range(3))
        self._open_below(np.arange(len(goal)))
        self._open_above(np.arange(len(goal)))
        if cells.after is None:
            self._narrow_brackets(np.arange(len(goal)))
            self._accept()
        else:  # cells change also where the rate of their context does not
            self.evaluate(np.arange(len(goal)), self.rate.copy())
        ends = np.flatnonzero(goal == 0)
        self.evaluate(ends, np.zeros(len(ends)))

    def is_off(self) -> NDArray[np.bool_]:
        """Genes whose error is larger than allowed."""
        return np.abs(self.error) > self.allowed

    def pending(self) -> NDArray[np.intp]:
        """Genes off their goal for which a better rate may exist."""
        at_end = ((self.rate == 0) & (self.error > 0)) | ((self.rate == _LARGEST_RATE) & (self.error < 0))
        return np.flatnonzero(self.is_off() & ~at_end & ~self._is_one_step())

    def proposal(self, genes: NDArray[np.intp]) -> Array:
        """Next rates of `genes`: false position in the expected curve; without an upper end, a step along the curve."""
        low, high = (np.interp(end[genes], _GRID, self.curve) for end in (self.low, self.high))
        low_error, high_error = self.low_error[genes], self.high_error[genes]
        bounded = np.isfinite(high_error)
        share = -low_error / np.where(bounded, high_error - low_error, np.inf)
        inside = low + np.clip(share, 0.02, 0.98) * (high - low)
        beyond = np.minimum(low - 1.1 * low_error, high)
        return np.interp(np.where(bounded, inside, beyond), self.curve, _GRID)

    def evaluate(self, genes: NDArray[np.intp], rate: Array) -> None:
        """Couple `genes` at `rate`, then renew depths, errors and brackets of all genes."""
        self.rate[genes], self.allowed[genes] = rate, 0.0
        self.tally.replace(genes, self.cells.at(genes, self.rate))
        depth = np.maximum(self.tally.depth(), 1.0)
        self.gap = np.log(depth).mean() - self.level
        self.depth = depth * np.exp(-self.gap)
        self.error = self._mean_log1p() - self.goal
        self._narrow_brackets(genes)
        self._accept()
        self.n_iterations += 1

    def depth_is_off(self) -> bool:
        """Whether the counts' mean log depth is not the level for which rates were sought, though it might be."""
        return abs(self.gap) > self.tolerance / 4 and self._next_level(self.gap) != self.level

    def follow_depth(self) -> None:
        """Newton step of the level; every rate moves by as much as keeps its gene's mean."""
        lost = self.tally.mean(lambda y: y / (1 + y), self.depth)
        gained = np.interp(self.rate, _GRID[1:], self.slope)
        compensation = np.clip(lost / gained, 0.0, 1.0)  # d log rate / d level
        count = self.tally.total
        feedback = (count * compensation).sum() / max(count.sum(), 1.0)  # d log depth / d level
        level = self._next_level(self.gap / (1 - min(feedback, _MOST_FEEDBACK)))
        genes = np.flatnonzero(count)
        rate = np.minimum(self.rate * np.exp(compensation * (level - self.level)), _LARGEST_RATE)
        self.level = level
        self.evaluate(genes, rate[genes])

    def _next_level(self, step: float) -> float:
        return float(np.clip(self.level + step, self.own_level - self.depth_change, self.own_level + self.depth_change))

    def result(self) -> RateMatch:
        """Rates with the means of the counts at their own depths."""
        self.depth = self.depth * np.exp(self.gap)
        achieved = self._mean_log1p()
        converged = np.abs(achieved - self.goal) <= self.allowed + self.tolerance / 4
        return RateMatch(self.rate, achieved, converged, self.n_iterations)

    def unsettled(self) -> NDArray[np.intp]:
        """Genes off their goal between whose rates of both sides no third count exists."""
        return np.flatnonzero(self.is_off() & self._is_one_step())

    def settle(self, genes: NDArray[np.intp]) -> None:
        """Give each of `genes` the nearer side of the step by which its mean passes its goal."""
        low, high = self.low[genes], self.high[genes]
        self.evaluate(genes, low)
        below = self.error[genes]
        self.evaluate(genes, high)
        above = self.error[genes]
        nearer = np.abs(below) < np.abs(above)
        self.evaluate(genes[nearer], low[nearer])
        passed = genes[(below < 0) & (above > 0)]
        self.allowed[passed] = np.abs(self.error[passed]) + self.tolerance / 2

    def _is_one_step(self) -> NDArray[np.bool_]:
        """Genes whose bracket holds one count, or several that come at one rate (cells of one partner and depth)."""
        return (self.high_count - self.low_count <= 1) | (self.high - self.low < _NARROW * self.high)

    def _accept(self) -> None:
        """Take genes within half the tolerance for done, until a change of depths moves them well out of it."""
        self.allowed[np.abs(self.error) <= self.tolerance / 2] = 0.75 * self.tolerance

    def _open_below(self, genes: NDArray[np.intp]) -> None:
        self.low[genes], self.low_error[genes], self.low_count[genes] = 0.0, -self.goal[genes], 0.0

    def _open_above(self, genes: NDArray[np.intp]) -> None:
        self.high[genes], self.high_error[genes], self.high_count[genes] = _LARGEST_RATE, np.inf, np.inf

    def _narrow_brackets(self, genes: NDArray[np.intp]) -> None:
        """Let the current rates of `genes` be an end of their brackets; open one that depths have emptied."""
        count = self.tally.total
        above = self.error[genes] > 0
        over, under = genes[above], genes[~above]
        self.high[over], self.low[under] = self.rate[over], self.rate[under]
        self.high_error[over], self.low_error[under] = self.error[over], self.error[under]
        self.high_count[over], self.low_count[under] = count[over], count[under]
        self._open_below(over[self.low[over] >= self.high[over]])
        self._open_above(under[self.low[under] >= self.high[under]])

    def _mean_log1p(self) -> Array:
        """Mean log1p CP10k of the current counts, (genes,)."""
        return self.tally.mean(np.log1p, self.depth)
