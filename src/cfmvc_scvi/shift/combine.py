"""Effects of combinations and of doses that were not observed, from effects that were."""

from __future__ import annotations

__all__ = ["additive_goal", "averaged_goal", "interpolate_dose", "monotone_effects"]

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift.goal import EffectGoal

Array = NDArray[np.float64]

_CREDIBLE = 0.99  # of the noise; misfits beyond are taken for curves that do turn


def additive_goal(control: Array, deltas: Sequence[Array], weights: Sequence[float] | None = None) -> Array:
    """Profile under a combination whose parts act additively, max(control + sum_j weight_j delta_j, 0).

    Parameters
    ----------
    control
        Mean log1p CP10k of control cells (..., genes).
    deltas
        Effect of each part in the same unit, (..., genes) each.
    weights
        Weight of each part, such as its dose relative to the dose of its delta; 1 when not given.

    Raises
    ------
    DataError
        If there is no part, or not one weight per part.
    """
    if not len(deltas):
        raise DataError("A combination needs the effect of at least one part; deltas is empty.")
    factors = np.ones(len(deltas)) if weights is None else np.asarray(weights, dtype=float)
    if len(factors) != len(deltas):
        raise DataError(f"{len(factors)} weights for {len(deltas)} parts; pass one weight per part.")
    total: Array = sum((factor * delta for factor, delta in zip(factors, deltas, strict=True)), np.zeros_like(control))
    return np.maximum(control + total, 0.0)


def averaged_goal(around_parts: EffectGoal, around_control: EffectGoal) -> EffectGoal:
    """Expected profile of a combination: the mean of its estimates around the sum of its parts and around control.

    Around the sum, what contexts share is the interaction; around control, the whole effect. The sum carries the noise
    of the parts in each context, control leaves out what the parts tell, so their errors differ. On simulated data with
    interactions from none to as large as the effects the mean is nearer to the truth than either where other contexts
    saw the combination, and as near as the nearer where the context itself did. Standard deviations are averaged too,
    as if the errors were the same.

    Parameters
    ----------
    around_parts, around_control
        Estimates of one condition in the same contexts; all else is that of the first.

    Raises
    ------
    DataError
        If contexts or genes differ.
    """
    if around_parts.goal.shape != around_control.goal.shape:
        raise DataError(
            f"Goals of shapes {around_parts.goal.shape} and {around_control.goal.shape} are not of the same."
        )
    goal, sd = ((getattr(around_parts, name) + getattr(around_control, name)) / 2 for name in ("goal", "sd"))
    return replace(around_parts, goal=goal, sd=sd)


def interpolate_dose(doses: ArrayLike, deltas: ArrayLike, dose: float) -> tuple[Array, bool]:
    """Effect at one dose: piecewise linear in log1p(dose), zero at dose 0, flat beyond the largest observed dose.

    Parameters
    ----------
    doses
        Observed doses, positive and distinct, in any order (doses,).
    deltas
        Effect at each of them (doses, genes).
    dose
        Dose wanted, >= 0, in the same unit.

    Returns
    -------
    The effect (genes,), and whether `dose` lies beyond the largest observed one.

    Raises
    ------
    DataError
        If a dose is not finite or out of range, occurs twice, or has no delta.
    """
    known, effects = np.asarray(doses, dtype=float), np.asarray(deltas)
    if known.ndim != 1 or not known.size or effects.shape[:1] != known.shape:
        raise DataError(
            f"doses {known.shape} and deltas {effects.shape} must be (doses,) and (doses, genes), at least one."
        )
    bad = known[~(np.isfinite(known) & (known > 0))]
    if bad.size or len(np.unique(known)) < len(known):
        raise DataError(f"Observed doses must be finite, positive and distinct; got {known.tolist()}.")
    if not (np.isfinite(dose) and dose >= 0):
        raise DataError(f"dose is {dose}; it must be finite and >= 0.")
    order = np.argsort(known)
    place = np.log1p(np.concatenate([[0.0], known[order]]))
    curve = np.concatenate([np.zeros_like(effects[:1]), effects[order]])
    at = min(np.log1p(dose), place[-1])
    right = int(np.clip(np.searchsorted(place, at), 1, len(known)))
    share = (at - place[right - 1]) / (place[right] - place[right - 1])
    return (1 - share) * curve[right - 1] + share * curve[right], bool(dose > known.max())


def monotone_effects(doses: ArrayLike, deltas: ArrayLike, sd: ArrayLike) -> Array:
    """Effects at several doses, made monotone from zero wherever their noise explains that they are not.

    Of the non-decreasing and the non-increasing least-squares curve that start at zero at dose 0 (weights 1 / sd^2),
    each gene takes the nearer. It keeps its own values where the misfit sum_d (delta_d - curve_d)^2 / sd_d^2 is beyond
    the 99 % quantile of chi-squared with one degree of freedom per dose: such a curve turns.

    Parameters
    ----------
    doses
        Distinct doses, in any order (doses,).
    deltas, sd
        Effect at each, and its standard deviation, (doses, genes) each.

    Returns
    -------
    Effects in the order given (doses, genes).

    References
    ----------
    Barlow, Bartholomew, Bremner and Brunk, Statistical Inference under Order Restrictions, 1972: the max-min formula,
    which handles all genes at once.
    """
    order = np.argsort(np.asarray(doses, dtype=float))
    effects = np.asarray(deltas, dtype=float)[order]
    weights = 1 / np.maximum(np.asarray(sd, dtype=float)[order], 1e-6) ** 2
    rising, falling = _rising(effects, weights), -_rising(-effects, weights)
    misfits = [(weights * (effects - curve) ** 2).sum(axis=0) for curve in (rising, falling)]
    curve = np.where(misfits[0] <= misfits[1], rising, falling)
    turns = np.minimum(*misfits) > chi2.ppf(_CREDIBLE, len(effects))
    result = np.empty_like(effects)
    result[order] = np.where(turns, effects, curve)
    return result


def _rising(effects: Array, weights: Array) -> Array:
    """Weighted isotonic regression over doses (doses, genes), at least 0: max over i <= d of the min over j >= d."""
    total, weight = (
        np.cumsum(np.vstack([np.zeros(effects.shape[1]), x]), axis=0) for x in (weights * effects, weights)
    )
    n_doses = len(effects)
    result = np.zeros_like(effects)
    for first in range(n_doses):
        means = (total[first + 1 :] - total[first]) / (weight[first + 1 :] - weight[first])
        least = np.minimum.accumulate(means[::-1])[::-1]  # over the last dose of the block, from each dose on
        result[first:] = np.maximum(result[first:], least)
    return result
