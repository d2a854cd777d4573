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

_TERMS = 64
_SAFE = 1 - 1e-12  # more than rounding takes from 1 - n p
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
    flip = p > 0.5
    u = np.where(flip, 1 - uniforms, uniforms)
    rare = np.where(flip, 1 - p, p)
    k = np.zeros_like(n)
    large = np.flatnonzero((n > _TERMS) & (rare > 0))
    k[large] = _large_binomial(u[large], n[large], rare[large])

    active = np.flatnonzero((u > _SAFE - n * rare) & (n <= _TERMS))  # P(0) >= 1 - n p: the others are zero
    u, size, rare = u[active], n[active], rare[active]
    pmf = np.exp(size * np.log1p(-rare))
    active, (u, size, pmf, rare) = _kept(u > pmf, active, u, size, pmf, rare)
    k[active] = 1
    active, (u, size, pmf, rare) = _kept(size > 1, active, u, size, pmf, rare)
    odds, cdf = rare / (1 - rare), pmf
    for term in range(1, _TERMS + 1):
        if not active.size:
            break
        k[active] = term
        pmf = pmf * odds * (size - term + 1) / term
        cdf = cdf + pmf
        unfinished = (u > cdf) & (term < size)  # the sum ends at n, where rounding may leave it below u
        active, (u, size, pmf, odds, cdf) = _kept(unfinished, active, u, size, pmf, odds, cdf)
    return np.where(flip, n - k, k)


def negative_binomial_inverse(uniforms: Array, mean: Array, theta: Array) -> Array:
    """Smallest k with P(NB(mean, theta) <= k) >= u, elementwise; variance mean + mean^2 / theta; 0 where the mean is 0.

    Parameters
    ----------
    uniforms, mean, theta
        Vectors of equal length: uniforms in (0, 1), numbers >= 0, numbers > 0.
    """
    k = np.zeros_like(mean)
    pmf = np.exp(-theta * np.log1p(mean / theta))
    active, (u, size, pmf, m) = _kept(uniforms > pmf, np.arange(len(k)), uniforms, theta, pmf, mean)
    ratio, cdf = m / (m + size), pmf
    for term in range(1, _TERMS + 1):
        if not active.size:
            return k
        k[active] = term
        pmf = pmf * ratio * (size + term - 1) / term
        cdf = cdf + pmf
        unfinished = u > cdf
        active, (u, size, pmf, ratio, cdf) = _kept(unfinished, active, u, size, pmf, ratio, cdf)
    k[active] = _large_negative_binomial(u, mean[active], size)
    return k


def _kept(which: NDArray[np.bool_], active: NDArray[np.intp], *values: Array) -> tuple[NDArray[np.intp], list[Array]]:
    """These of the elements and of their values."""
    rows = np.flatnonzero(which)
    return active.take(rows), [value.take(rows) for value in values]


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
