"""Inverse distribution functions of the binomial and the negative binomial, fast for the small counts of single cells.

The smallest k with F(k) >= u, found by summing the probabilities upwards from zero on ever fewer elements; what has not
ended after `_TERMS` terms is searched for with the incomplete beta function. (`scipy.stats.nbinom.ppf` takes ten times
longer on small counts and does not return for some extreme means and dispersions.)
"""

from __future__ import annotations

__all__ = ["binomial_inverse", "negative_binomial_inverse"]

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cfmvc_scvi.observe._counts import Array

_WIDTHS = (1, 1, 1, 1, 4, 8, 16, 32)  # terms that are summed before a look at which elements are done
_TERMS = sum(_WIDTHS)
_MARGIN = 1e-12  # more than rounding takes from n (1 - p)
_LARGEST = 2.0**52  # no count beyond: whole numbers are exact in float64 up to here


def binomial_inverse(uniforms: Array, n: Array, p: Array) -> Array:
    """Smallest k with P(Binomial(n, p) <= k) >= u, elementwise; exactly n where p = 1 and 0 where p = 0.

    Where p > 1/2 the failures are counted instead, n - Binomial^-1(1 - u; n, 1 - p): the sum is shorter and cannot
    underflow.

    Parameters
    ----------
    uniforms, n, p
        Vectors of equal length: uniforms in (0, 1), whole numbers >= 0, probabilities in [0, 1].
    """
    result = n.copy()
    rare = 1 - p
    some = np.flatnonzero((uniforms <= n * rare + _MARGIN) | (p <= 0.5))  # P(n) >= 1 - n (1 - p): the others stay n
    u, size, p, rare = (values.take(some) for values in (uniforms, n, p, rare))
    flip = (p > 0.5).astype(np.float64)  # arithmetic with 0 and 1: np.where is slow where they mix
    u, rare = np.abs(flip - u), np.minimum(p, rare)
    k, beyond = _summed(u, np.exp(size * np.log1p(-rare)), -rare / (1 - rare), -size)
    large = beyond[size[beyond] > _TERMS]
    k[beyond] = size[beyond]  # the sum ends at n, where rounding may leave it below u
    k[large] = _large_binomial(u[large], size[large], rare[large])
    k = np.minimum(k, size)
    result[some] = np.abs(flip * size - k)
    return result


def negative_binomial_inverse(uniforms: Array, mean: Array, theta: Array) -> Array:
    """Smallest k with P(NB(mean, theta) <= k) >= u, elementwise; variance mean + mean^2 / theta; 0 where the mean is 0.

    Parameters
    ----------
    uniforms, mean, theta
        Vectors of equal length: uniforms in (0, 1), numbers >= 0, numbers > 0.
    """
    k, rest = _summed(uniforms, np.exp(-theta * np.log1p(mean / theta)), mean / (mean + theta), theta)
    if rest.size:
        k[rest] = _large_negative_binomial(uniforms[rest], mean[rest], theta[rest])
    return k


def _summed(u: Array, pmf: Array, ratio: Array, size: Array) -> tuple[Array, NDArray[np.intp]]:
    """Smallest k with p_0 + .. + p_k >= u, elementwise, where p_k = p_{k-1} ratio (size + k - 1) / k, or zero below.

    Parameters
    ----------
    u, pmf, ratio, size
        Vectors of equal length; `pmf` is p_0.

    Returns
    -------
    k, and the elements of which more than `_TERMS` terms are needed, where k is below the count.

    References
    ----------
    Panjer, Recursive evaluation of a family of compound distributions, ASTIN Bulletin 12 (1981) 22.
    """
    k = np.zeros_like(u)
    active, first = np.flatnonzero(u > pmf), 1
    u, cdf, ratio, size = (values.take(active) for values in (u, pmf, ratio, size))
    pmf = cdf
    for width in _WIDTHS:
        if not active.size:
            break
        term = np.arange(first, first + width, dtype=np.float64)[:, None]
        terms = np.maximum(ratio * (size + (term - 1)) / term, 0.0)
        for row in terms:  # faster than accumulate along the first axis
            row *= pmf
            pmf = row.copy()
            row += cdf
            cdf = row
        k[active] = first + (terms[:-1] < u).sum(axis=0)
        rest = np.flatnonzero(u > cdf)
        active = active.take(rest)
        u, pmf, cdf, ratio, size = (values.take(rest) for values in (u, pmf, cdf, ratio, size))
        first += width
    return k, active


def _large_binomial(u: Array, n: Array, p: Array) -> Array:
    """Binomial inverse by search around its Cornish-Fisher approximation."""

    def reached(k: Array) -> NDArray[np.bool_]:
        return (k >= n) | ((k >= 0) & (special.betainc(n - k, k + 1, 1 - p) >= u))

    z = special.ndtri(u)
    return _search(reached, n * p + z * np.sqrt(n * p * (1 - p)) + (1 - 2 * p) * (z**2 - 1) / 6)


def _large_negative_binomial(u: Array, mean: Array, theta: Array) -> Array:
    """Negative-binomial inverse by search around the quantile of its gamma-distributed rate."""

    def reached(k: Array) -> NDArray[np.bool_]:
        return (k >= _LARGEST) | ((k >= 0) & (special.betainc(theta, k + 1, theta / (theta + mean)) >= u))

    return _search(reached, np.minimum(special.gammaincinv(theta, u) * mean / theta, _LARGEST))


def _search(reached: Callable[[Array], NDArray[np.bool_]], guess: Array) -> Array:
    """Smallest whole number k >= 0 from which on `reached` holds, by doubling steps from `guess`, then halving."""
    guess = np.floor(guess)
    low, high = guess - 2, guess + 1
    step = 4.0
    while (too_high := reached(low)).any():
        low, high, step = np.where(too_high, low - step, low), np.where(too_high, low, high), 2 * step
    step = 4.0
    while (too_low := ~reached(high)).any():
        low, high, step = np.where(too_low, high, low), np.where(too_low, high + step, high), 2 * step
    while (wide := high - low > 1).any():
        middle = np.floor((low + high) / 2)
        below = wide & ~reached(middle)
        low, high = np.where(below, middle, low), np.where(wide & ~below, middle, high)
    return high
