"""Hill curves of effects over doses: dose of half effect, with its posterior on a grid."""

from __future__ import annotations

__all__ = ["HillFit", "fit_hill"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError

Array = NDArray[np.float64]

_N_HALF_DOSES = 121
_BEYOND = 30.0  # half doses are sought this factor below and above the doses seen
_SLOPES = np.geomspace(0.5, 4.0, 13)


@dataclass(frozen=True)
class HillFit:
    """Curves top * dose^slope / (half_dose^slope + dose^slope), one per curve.

    Parameters
    ----------
    half_dose
        Posterior median of the dose of half effect (curves,).
    low, high
        Interval of the half dose (curves,).
    slope
        Posterior mean exponent (curves,).
    top
        Effect at saturation that fits best at half dose and slope (curves, columns).
    identified
        Whether the interval lies within the doses that were seen (curves,).
    """

    half_dose: Array
    low: Array
    high: Array
    slope: Array
    top: Array
    identified: NDArray[np.bool_]

    def effect(self, dose: float) -> Array:
        """Effect at one dose (curves, columns)."""
        power = dose**self.slope
        return self.top * (power / (power + self.half_dose**self.slope))[:, None]


def fit_hill(
    doses: ArrayLike, effects: ArrayLike, sd: ArrayLike, level: float = 0.9, *, shared: bool = False
) -> HillFit:
    r"""Posterior of the dose of half effect on a grid of half doses and slopes, the tops integrated out.

    .. math:: y_{dg} = T_g \frac{d^h}{c^h + d^h} + \epsilon, \quad \epsilon \sim N(0, \phi\, \sigma_{dg}^2)

    with flat priors on :math:`\log c` (from a 30th of the lowest to 30 times the highest dose), :math:`\log h` (.5 to
    4) and the effect at the highest dose. :math:`\phi \ge 1` is the misfit of the best curve per degree of freedom, so
    that curves of another shape widen the interval rather than narrow it.

    Parameters
    ----------
    doses
        Distinct positive doses, at least two (doses,).
    effects, sd
        Effect at each dose, and its standard deviation, (doses, columns) each.
    level
        Content of the intervals.
    shared
        Fit one half dose and slope to all columns, rather than one to each.

    Raises
    ------
    DataError
        If there are fewer than two doses, a dose is not positive, or shapes differ.

    Notes
    -----
    Cost: 121 x 13 curves x doses x columns. Deterministic.
    """
    known, values, error = (np.asarray(x, dtype=float) for x in (doses, effects, sd))
    if known.ndim != 1 or len(np.unique(known)) < max(2, len(known)) or not (known > 0).all():
        raise DataError(f"A curve needs two or more distinct positive doses; got {known.tolist()}.")
    if values.ndim != 2 or values.shape != error.shape or len(values) != len(known):
        raise DataError(f"effects {values.shape} and sd {error.shape} must be (doses, columns) for {len(known)} doses.")
    half_doses = np.geomspace(known.min() / _BEYOND, known.max() * _BEYOND, _N_HALF_DOSES)
    slope, centre = (grid.ravel() for grid in np.meshgrid(_SLOPES, half_doses, indexing="ij"))
    power = known[:, None] ** slope
    curves = power / (power + centre**slope)  # (doses, grid)
    curves /= curves[np.argmax(known)]  # flat in the effect at the highest dose: tops far beyond it are not favoured
    weight = 1 / np.maximum(error, 1e-6) ** 2
    precision = (curves**2).T @ weight  # (grid, columns)
    along = curves.T @ (weight * values)
    misfit = (weight * values**2).sum(axis=0) - along**2 / precision
    evidence = -0.5 * np.log(precision)
    if shared:
        misfit, evidence = misfit.sum(axis=1, keepdims=True), evidence.sum(axis=1, keepdims=True)
    freedom = max(1, len(known) * (values.shape[1] if shared else 1) - (values.shape[1] if shared else 1) - 2)
    spread = np.maximum(misfit.min(axis=0) / freedom, 1.0)
    log_posterior = evidence - 0.5 * misfit / spread
    posterior = np.exp(log_posterior - log_posterior.max(axis=0))
    posterior /= posterior.sum(axis=0)
    marginal = posterior.reshape(len(_SLOPES), _N_HALF_DOSES, -1).sum(axis=0)
    low, middle, high = (_quantile(half_doses, marginal, q) for q in (0.5 - level / 2, 0.5, 0.5 + level / 2))
    exponent = np.exp(np.log(slope) @ posterior)
    shape = known[:, None] ** exponent / (known[:, None] ** exponent + middle**exponent)  # (doses, curves)
    top = (weight * values * shape).sum(axis=0) / (weight * shape**2).sum(axis=0)
    identified = (low >= known.min()) & (high <= known.max())
    return HillFit(middle, low, high, exponent, top[None] if shared else top[:, None], identified)


def _quantile(grid: Array, marginal: Array, share: float) -> Array:
    """Quantile of each column of `marginal` (grid, curves), linear in the log of the grid."""
    cumulative = np.cumsum(marginal, axis=0) - 0.5 * marginal
    return np.exp([np.interp(share, column, np.log(grid)) for column in cumulative.T])
