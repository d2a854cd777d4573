"""The mean log1p CP10k of a gene as a function of its rate, for negative-binomial counts of known depths."""

from __future__ import annotations

__all__ = ["expected_log1p_curve", "rates_of_expected_log1p"]

import numpy as np
from numpy.typing import ArrayLike

from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe._counts import CP10K, Array, gene_vector

# Trapezoid rule in w = log s: the integrand is analytic for |Im w| < pi/2, so that a step of 1/2 is exact to 1e-8.
_NODES = np.exp(np.arange(-30.0, 4.0, 0.5))
_WEIGHTS = 0.5 * np.exp(-_NODES)
_NEWTON_STEPS = 60
_PRECISION = 1e-9
_LOG_RATE_BOUNDS = (-25.0, 25.0)


def expected_log1p_curve(
    rate: ArrayLike, depths: ArrayLike, theta: ArrayLike, config: ObservationConfig | None = None
) -> Array:
    r"""Mean over cells of E log1p(1e4 X / l), X ~ NB(rate l / 1e4, theta), at quantiles of the depths l.

    With log(1 + y) = int_0^inf (1 - exp(-s y)) exp(-s) / s ds and the negative binomial's Laplace transform,

        E log1p(a X) = int (1 - (1 + m (1 - exp(-a s)) / theta)^-theta) exp(-s) d log s,   a = 1e4 / l,  m = rate / a,

    which a trapezoid rule of 68 nodes integrates to about 1e-8: no simulation, no truncation, and not log E for E log.

    Parameters
    ----------
    rate
        Counts per 10k, >= 0, (genes,).
    depths
        Total counts of the cells, >= 0, (cells,); a cell without counts contributes zero.
    theta
        Inverse dispersion, (genes,).
    config
        `depth_levels` is the number of quantiles, at (i + 1/2) / depth_levels, that stand for the depths.

    Returns
    -------
    Mean log1p(counts per 10k), (genes,); strictly increasing in the rate.

    Raises
    ------
    DataError
        If there is no cell, or a value is not finite or out of range.

    References
    ----------
    The integral of the logarithm is Frullani's; the rule: Trefethen and Weideman, SIAM Review 56 (2014) 385, section 5.
    """
    rates = gene_vector("rate", rate, np.size(rate))
    size = gene_vector("theta", theta, len(rates), positive=True)
    return _mean_and_slope(rates, _depth_quantiles(depths, config or ObservationConfig()), size)[0]


def rates_of_expected_log1p(
    goal: ArrayLike, depths: ArrayLike, theta: ArrayLike, config: ObservationConfig | None = None
) -> Array:
    """Rates at which `expected_log1p_curve` reaches `goal`: for a context without reference cells.

    Newton's method in log rate, kept inside a bracket by bisection.

    Parameters
    ----------
    goal
        Mean log1p(counts per 10k), finite, (genes,).
    depths, theta, config
        As in `expected_log1p_curve`; at least one depth must be positive.

    Returns
    -------
    Counts per 10k, (genes,); 0 where the goal is 0 or below, at most e^25.

    Raises
    ------
    DataError
        As `expected_log1p_curve`, or if no cell has counts.
    """
    aim = gene_vector("goal", np.maximum(goal, 0), np.size(goal))
    size = gene_vector("theta", theta, len(aim), positive=True)
    levels = _depth_quantiles(depths, config or ObservationConfig())
    if not levels.any():
        raise DataError("All depths are zero: no rate gives these cells any count. Pass the depths of real cells.")
    low, high = (np.full_like(aim, bound) for bound in _LOG_RATE_BOUNDS)
    log_rate = np.clip(np.log(np.maximum(np.expm1(aim), np.exp(low))), low, high)
    open_ = np.flatnonzero(aim > 0)
    for _ in range(_NEWTON_STEPS):
        if not open_.size:
            break
        mean, slope = _mean_and_slope(np.exp(log_rate[open_]), levels, size[open_])
        error = mean - aim[open_]
        far = np.abs(error) > _PRECISION * aim[open_]
        open_, error, slope = open_[far], error[far], slope[far]
        current = log_rate[open_]
        high[open_] = np.where(error > 0, current, high[open_])
        low[open_] = np.where(error > 0, low[open_], current)
        step = current - error / np.maximum(slope, np.finfo(float).tiny)
        inside = (step > low[open_]) & (step < high[open_])
        log_rate[open_] = np.where(inside, step, (low[open_] + high[open_]) / 2)
    return np.where(aim > 0, np.exp(log_rate), 0.0)


def _depth_quantiles(depths: ArrayLike, config: ObservationConfig) -> Array:
    """Quantiles of the depths at the middles of `depth_levels` equal parts."""
    depth = gene_vector("depths", depths, np.size(depths))
    if not depth.size:
        raise DataError("There is no depth; pass the total counts of at least one cell.")
    return np.quantile(depth, (np.arange(config.depth_levels) + 0.5) / config.depth_levels)


def _mean_and_slope(rate: Array, depths: Array, theta: Array) -> tuple[Array, Array]:
    """Mean log1p CP10k and its derivative in log rate, averaged over `depths`; the cost is rates x depths x nodes."""
    per_count = CP10K / np.maximum(depths, 1.0)
    mean_count = rate[:, None] * depths / CP10K
    total, slope = np.zeros_like(rate), np.zeros_like(rate)
    for s, weight in zip(_NODES, _WEIGHTS, strict=True):
        loss = mean_count * -np.expm1(-per_count * s)
        log_base = np.log1p(loss / theta[:, None])
        seen = -np.expm1(-theta[:, None] * log_base)
        total += weight * seen.mean(axis=1)
        slope += weight * (loss * (1 - seen) * np.exp(-log_base)).mean(axis=1)
    return total, slope
