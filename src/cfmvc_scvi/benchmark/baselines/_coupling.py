"""Counts at given gene rates, made from a cell's own counts and matched in mean log1p CP10k."""

from __future__ import annotations

__all__ = ["bulk_rate", "match_mean", "moment_dispersion", "superpose"]

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi.metrics import log_normalize

Array = NDArray[np.float64]

_CP10K = 1e4
_RATE_BOUNDS = (1e-6, 5e3)  # counts per 10k; no gene of a real cell has more than half of its counts
_TOTAL_BOUNDS = (
    7e3,
    1.5e4,
)  # of the sum of rates: a common factor changes the depth but hardly the profile, and would run away
_SLACK = 1.03  # brackets widen by this at each step, for the other genes move the depth
_MAX_LOG_STEP = 1.5


def bulk_rate(counts: Array) -> Array:
    """Counts per 10k of the summed cells, (genes,)."""
    total = counts.sum()
    return counts.sum(axis=0) * (_CP10K / total if total > 0 else 0.0)


def moment_dispersion(counts: Array, bounds: tuple[float, float] = (0.15, 100.0)) -> Array:
    """Inverse dispersion theta by moments of depth-scaled counts, m^2 / (v - m), clipped to `bounds`, (genes,)."""
    depth = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    scaled = counts / (depth / depth.mean())
    mean, variance = scaled.mean(axis=0), scaled.var(axis=0, ddof=1)
    return np.clip(mean**2 / np.maximum(variance - mean, 1e-8), *bounds)


def superpose(counts: Array, fold_change: Array, dispersion: float, rng: Generator) -> Array:
    """Counts at `fold_change` times the group's rate: thinned below one, gamma-Poisson counts added above.

    The added counts of a cell of depth l have the mean (fold_change - 1) x bulk rate x l.

    Parameters
    ----------
    counts
        Whole numbers (cells, genes).
    fold_change
        Of the rate, (genes,).
    dispersion
        Inverse dispersion theta of what is added.
    rng
        Draws fresh noise for each cell.
    """
    depth = counts.sum(axis=1, keepdims=True) / _CP10K
    kept = rng.binomial(counts.astype(np.int64), np.minimum(fold_change, 1.0))
    mean = np.maximum(fold_change - 1.0, 0.0) * bulk_rate(counts) * depth
    return (kept + rng.poisson(mean * rng.gamma(dispersion, 1.0 / dispersion, size=mean.shape))).astype(np.float64)


class _Points:
    """Potential counts, each with the gene rate above which it exists: own counts below the own rate, others beyond."""

    def __init__(self, counts: Array, dispersion: Array, rng: Generator) -> None:
        self._rng, self._shape = rng, counts.shape
        self._depth = counts.sum(axis=1, keepdims=True) / _CP10K
        self._gamma = rng.standard_gamma(np.broadcast_to(dispersion, counts.shape)) / dispersion
        self._reach = bulk_rate(counts)
        self._entry = np.empty(0, dtype=np.int64)
        self._gene = np.empty(0, dtype=np.int64)
        self._threshold = np.empty(0)
        self._add(counts.astype(np.int64), np.zeros_like(self._reach), self._reach)

    def _add(self, number: NDArray[np.int64], low: Array, high: Array) -> None:
        entry = np.repeat(np.arange(number.size), number.ravel())
        gene = entry % self._shape[1]
        threshold = low[gene] + (high - low)[gene] * self._rng.random(len(entry))
        self._entry = np.concatenate([self._entry, entry])
        self._gene = np.concatenate([self._gene, gene])
        self._threshold = np.concatenate([self._threshold, threshold])

    def at(self, rate: Array) -> Array:
        """Counts (cells, genes) at gene rates (genes,): every entry grows with the rate of its gene."""
        if (rate > self._reach).any():
            high = np.where(rate > self._reach, 1.5 * rate, self._reach)
            self._add(self._rng.poisson((high - self._reach) * self._depth * self._gamma), self._reach, high)
            self._reach = high
        exists = self._threshold < rate[self._gene]
        size = self._shape[0] * self._shape[1]
        return np.bincount(self._entry[exists], minlength=size).reshape(self._shape).astype(np.float64)


def match_mean(counts: Array, goal: Array, dispersion: Array, rng: Generator, *, n_steps: int = 20) -> Array:
    """Counts coupled to `counts` whose mean log1p CP10k is `goal` in every gene, as far as whole counts allow.

    Each count carries a uniform and disappears when its gene's rate falls below it; above the own rate m, a Poisson
    process of intensity l gamma, gamma ~ Gamma(theta, theta), adds counts. With all draws fixed, counts grow with the
    rate, which a bracketed search finds for all genes at once. The depth of cells may change by the factors .7 to 1.5.

    Parameters
    ----------
    counts
        Whole numbers (cells, genes).
    goal
        Mean log1p CP10k, >= 0, (genes,).
    dispersion
        Inverse dispersion theta of what is added, (genes,).
    rng
        Draws uniforms and gammas, once.
    n_steps
        Of the search.
    """
    points = _Points(counts, dispersion, rng)
    own_rate, own_mean = bulk_rate(counts), log_normalize(counts).mean(axis=0)
    ratio = np.expm1(goal) / np.maximum(np.expm1(own_mean), 1e-3)
    rate = np.clip(np.where(own_rate > 0, own_rate * ratio, np.expm1(goal)), *_RATE_BOUNDS)
    low, high = np.full_like(rate, _RATE_BOUNDS[0]), np.full_like(rate, _RATE_BOUNDS[1])
    best, best_error = rate.copy(), np.full_like(rate, np.inf)
    for _ in range(n_steps):
        error = log_normalize(points.at(rate)).mean(axis=0) - goal
        better = np.abs(error) < best_error
        best, best_error = np.where(better, rate, best), np.where(better, np.abs(error), best_error)
        high = np.where(error > 0, np.minimum(high, rate), high * _SLACK)
        low = np.where(error < 0, np.maximum(low, rate), low / _SLACK)
        step = np.clip(-error / (0.6 * goal + 0.02), -_MAX_LOG_STEP, _MAX_LOG_STEP)
        proposed = rate * np.exp(step)
        outside = (proposed <= low) | (proposed >= high)
        rate = np.where(outside, np.sqrt(low * high), proposed)
        rate = np.clip(rate * (np.clip(rate.sum(), *_TOTAL_BOUNDS) / rate.sum()), *_RATE_BOUNDS)
    return points.at(best)
