"""What the effects of different perturbations have in common, and how far a further one can be expected to share it."""

from __future__ import annotations

__all__ = [
    "SharedShift",
    "calibrated_factor",
    "expected_weights",
    "inner_products",
    "own_gene_fold",
    "shared_of_products",
    "shared_shift",
]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.stats import truncnorm

from cfmvc_scvi.errors import DataError, NonFiniteError

Array = NDArray[np.float64]

_LEAST = 3  # perturbations without which nothing can be said of how alike they are
_ITERATIONS = 100
_TOLERANCE = 1e-6
_FAR = 30.0  # errors
_PARTS = 25  # in which perturbations are left out, one by one if there are no more


@dataclass(frozen=True)
class SharedShift:
    """Shift that a further perturbation is expected to make, whatever it is.

    Parameters
    ----------
    weights
        Of the perturbations (perturbations,), >= 0, summing to `factor`: the shift is weights @ shifts.
    factor
        In [0, 1]: how much of their centre a further one shares, by leaving each out; 0 if there are fewer than three.
    """

    weights: Array
    factor: float


def shared_shift(shifts: Array) -> SharedShift:
    r"""Shrunken geometric median of the shifts of several perturbations.

    The centre m minimises :math:`\sum_p |\Delta_p - m|`: few perturbations are strong, and a mean would take on what
    is theirs alone. It is the maximum likelihood where deviations are multivariate Laplace, scale mixtures of normals.
    The factor comes from `calibrated_factor` with m, each perturbation left out of it, as the prediction of that one.

    Parameters
    ----------
    shifts
        Shift of each perturbation (perturbations, columns).

    Raises
    ------
    DataError
        If it is no matrix.
    NonFiniteError
        If a shift is not finite.

    Notes
    -----
    Weiszfeld's iteration on inner products: at most 100 steps of perturbations^2, after perturbations^2 x columns. When
    a perturbation is left out, the weights of the others keep their proportions.
    """
    return shared_of_products(inner_products(shifts))


def expected_weights(shifts: Array, noise: Array) -> Array:
    r"""Weights of the shifts whose sum is to be expected of a perturbation of which nothing is known.

    Most perturbations do little but what all share, a few are strong, and these are often alike. With m the geometric
    median and v the first right singular vector of :math:`\Delta_p - m`, rows over the roots of their noise, it is

    .. math:: \phi \left(m + \lambda\, v \, \frac{\sum_p r_p\, v \cdot (\Delta_p - m)}{\sum_p r_p}\right), \quad
        r_p = \sqrt{\left(1 - n_p / |\Delta_p|^2\right)_+}

    where r is the share of a shift's length that its noise n does not explain: what a perturbation without effect does
    along v is chance. The plain mean of all has r, :math:`\lambda` and :math:`\phi` = 1, and the noise of all other
    directions. The factors are posterior means, all of [0, 1] as likely before, of those of least squares (with weights
    r for :math:`\lambda`) over perturbations left out of m, v and the mean: the evidence rests on the few strong ones,
    and is as uncertain as they are few.

    Parameters
    ----------
    shifts
        Shift of each perturbation (perturbations, columns).
    noise
        Sampling variance of each, its mean over columns (perturbations,), positive.

    Returns
    -------
    (perturbations,), of either sign, not summing to one; zeros with fewer than three perturbations.

    Raises
    ------
    DataError, NonFiniteError
        As of `shared_shift`, or if there is not one positive noise of each perturbation.

    Notes
    -----
    Each perturbation is left out, or one of 25 interleaved parts at a time where there are more. Cost: perturbations^2
    x columns, and at most 26 leading eigenvectors. Deterministic.
    """
    products, n = inner_products(shifts), len(shifts)
    if noise.shape != (n,) or not (np.isfinite(noise) & (noise > 0)).all():
        raise DataError(f"noise must be a positive number for each of {n} shifts, got shape {noise.shape}.")
    if n < _LEAST:
        return np.zeros(n)
    total = noise * shifts.shape[1]
    # products of what is left out with median and axis (n, 2), and of these two with each other (n, 2, 2)
    along, length = np.zeros((n, 2)), np.zeros((n, 2, 2))
    for part in range(min(n, _PARTS)):
        out = np.arange(part, n, _PARTS)
        kept = np.setdiff1d(np.arange(n), out)
        inner = products[np.ix_(kept, kept)]
        parts = _median_and_axis(inner, total[kept])
        along[out], length[out] = products[np.ix_(out, kept)] @ parts.T, parts @ inner @ parts.T
    real = _real_share(products, total)
    mix = np.array([1.0, _factor_within(real * (along - length[:, 0])[:, 1], real * length[:, 1, 1])])
    factor = _factor_within(along @ mix, mix @ length @ mix)
    return np.asarray(factor * mix @ _median_and_axis(products, total))


def calibrated_factor(predicted: Array, observed: Array, weights: Array | None = None) -> float:
    r"""Factor in [0, 1] by which predictions should be multiplied, shrunk to 0 as far as it is uncertain.

    Least squares, :math:`\lambda = \sum_p w_p \hat\Delta_p \cdot \Delta_p / \sum_p w_p |\hat\Delta_p|^2`, times the
    positive part of :math:`1 - s^2 / \lambda^2`, where s is the standard error over perturbations: predictions that
    help a few perturbations by chance get nothing.

    Parameters
    ----------
    predicted, observed
        Of each perturbation, predicted without it, (perturbations, columns).
    weights
        Of the perturbations (perturbations,); equal if not given.

    Returns
    -------
    The factor; 0 with fewer than three perturbations that have a prediction.
    """
    weights = np.ones(len(predicted)) if weights is None else weights
    return _calibrated(weights * (predicted * observed).sum(axis=1), weights * (predicted**2).sum(axis=1))


def _calibrated(along: Array, length: Array) -> float:
    """`calibrated_factor` of the products of predictions with what was observed, and with themselves."""
    n = np.count_nonzero(length)
    if n < _LEAST or not length.sum() > 0:
        return 0.0
    factor = along.sum() / length.sum()
    if not factor > 0:
        return 0.0
    variance = ((along - factor * length) ** 2).sum() * n / (n - 1) / length.sum() ** 2
    return float(min(factor, 1.0) * max(0.0, 1 - variance / factor**2))


def inner_products(shifts: Array) -> Array:
    """Inner products of all shifts, (perturbations, perturbations), of which all else is computed; errors as there."""
    if shifts.ndim != 2:
        raise DataError(f"shifts must be (perturbations, columns), got shape {shifts.shape}.")
    bad = int((~np.isfinite(shifts)).any(axis=1).sum())
    if bad:
        raise NonFiniteError(f"The shifts of {bad} perturbations are not finite; leave out groups without cells.")
    return np.asarray(shifts @ shifts.T)


def shared_of_products(products: Array) -> SharedShift:
    """`shared_shift` of shifts with these inner products, (perturbations, perturbations)."""
    if len(products) < _LEAST:
        return SharedShift(np.zeros(len(products)), 0.0)
    weights = _median_weights(products)
    squared, centre = np.diag(products), products @ weights
    rest = np.maximum(1 - weights, np.finfo(float).eps)
    along = (centre - weights * squared) / rest
    length = np.maximum(weights @ centre - 2 * weights * centre + weights**2 * squared, 0.0) / rest**2
    factor = _calibrated(weights * along, weights * length)
    return SharedShift(factor * weights, factor)


def _real_share(products: Array, noise: Array) -> Array:
    """Share of the length of each shift that is no noise (perturbations,); `noise` is that of the squared lengths."""
    return np.sqrt(1 - noise / np.maximum(np.diag(products), noise))


def _median_and_axis(products: Array, noise: Array) -> Array:
    """Weights (2, perturbations) of the geometric median, and of the mean of what is apart from it along its axis."""
    median = _median_weights(products)
    along, last = products @ median, len(products) - 1
    apart = products - along - along[:, None] + median @ along  # inner products of shifts less the median
    scale, real = np.sqrt(noise), _real_share(products, noise)
    vector = eigh(apart / np.outer(scale, scale), subset_by_index=[last, last])[1][:, 0]
    mean = (real * scale) @ vector / real.sum() if real.any() else 0.0
    weights = vector / scale
    return np.stack([median, mean * (weights - weights.sum() * median)])


def _factor_within(along: Array, length: Array) -> float:
    """Posterior mean of a least-squares factor, uniform in [0, 1] before, its error normal with that over rows."""
    total, n = length.sum(), len(length)
    if not total > 0:
        return 0.0
    factor = along.sum() / total
    error = np.sqrt(((along - factor * length) ** 2).sum() * n / (n - 1)) / total
    if not error > 0:
        return float(np.clip(factor, 0.0, 1.0))
    if max(-factor, factor - 1) > _FAR * error:  # so far outside that scipy's mean is no number
        return float(np.clip(factor, 0.0, 1.0))
    return float(np.clip(truncnorm.mean(-factor / error, (1 - factor) / error, factor, error), 0.0, 1.0))


def _median_weights(products: Array) -> Array:
    """Weights (perturbations,) of the geometric median of shifts with these inner products, summing to one."""
    weights = np.full(len(products), 1 / len(products))
    squared = np.diag(products)
    least = _TOLERANCE * np.sqrt(squared.max())
    for _ in range(_ITERATIONS if least > 0 else 0):
        along = products @ weights
        inverse = 1 / np.maximum(np.sqrt(np.maximum(squared - 2 * along + weights @ along, 0.0)), least)
        before, weights = weights, inverse / inverse.sum()
        if np.abs(weights - before).max() < _TOLERANCE:
            break
    return weights


def own_gene_fold(before: Array, after: Array) -> float:
    r"""Log fold change that a perturbation makes of the very gene it targets, from perturbations seen.

    The median over perturbations of :math:`\log((e^{after} - 1/2) / (e^{before} - 1/2))`, times the positive part of
    1 - (its standard error / it)^2; a knock-down whose guide spares the transcript, or an activation, shows as it is.

    Parameters
    ----------
    before, after
        Mean log1p CP10k of the own gene of each perturbation, expected without the targeting and measured, (n,).

    Returns
    -------
    Natural log of the factor; 0 with fewer than three perturbations.
    """
    if len(before) < _LEAST:
        return 0.0
    change = np.log(np.exp(after) - 0.5) - np.log(np.exp(before) - 0.5)
    middle = float(np.median(change))
    error = 1.2533 * 1.4826 * np.median(np.abs(change - middle)) / np.sqrt(len(change))  # of a median, by the MAD
    return middle * max(0.0, 1 - (error / middle) ** 2) if middle != 0 else 0.0
