"""What the effects of different perturbations have in common, and how far a further one can be expected to share it."""

from __future__ import annotations

__all__ = ["SharedShift", "calibrated_factor", "own_gene_fold", "shared_shift"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError, NonFiniteError

Array = NDArray[np.float64]

_LEAST = 3  # perturbations without which nothing can be said of how alike they are
_ITERATIONS = 100
_TOLERANCE = 1e-6


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
    if shifts.ndim != 2:
        raise DataError(f"shifts must be (perturbations, columns), got shape {shifts.shape}.")
    bad = int((~np.isfinite(shifts)).any(axis=1).sum())
    if bad:
        raise NonFiniteError(f"The shifts of {bad} perturbations are not finite; leave out groups without cells.")
    if len(shifts) < _LEAST:
        return SharedShift(np.zeros(len(shifts)), 0.0)
    weights = _median_weights(shifts)
    centre, rest = weights @ shifts, 1 - weights[:, None]
    without = (centre - weights[:, None] * shifts) / np.maximum(rest, np.finfo(float).eps)
    factor = calibrated_factor(without, shifts, weights)
    return SharedShift(factor * weights, factor)


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
    along = weights * (predicted * observed).sum(axis=1)
    length = weights * (predicted**2).sum(axis=1)
    n = np.count_nonzero(length)
    if n < _LEAST or not length.sum() > 0:
        return 0.0
    factor = along.sum() / length.sum()
    if not factor > 0:
        return 0.0
    variance = ((along - factor * length) ** 2).sum() * n / (n - 1) / length.sum() ** 2
    return float(min(factor, 1.0) * max(0.0, 1 - variance / factor**2))


def _median_weights(shifts: Array) -> Array:
    """Weights (perturbations,) of the geometric median, summing to one."""
    weights = np.full(len(shifts), 1 / len(shifts))
    products = shifts @ shifts.T
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
