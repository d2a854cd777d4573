"""How far an expected effect can be relied on: intervals, trust, and what they rest on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from cfmvc_scvi.config import CalibrationConfig
from cfmvc_scvi.model.cells import Group, Groups
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.question import Known, level_of
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.shift import Calibration, expected_noise, profile_distances

__all__ = ["effect_interval", "expected_error", "trust_of", "trust_of_cells", "trust_row"]

Array = NDArray[np.float64]


def effect_interval(
    reference: Reference, answer: Level, context: int, level: float, n_cells: int | None
) -> tuple[Array, Array]:
    """Interval of the effect that `n_cells` perturbed cells of a context would show, low and high (genes,).

    Half-width: for a context that was not observed, the calibrated quantile times sqrt(`Calibration.variance` + noise
    of new cells); for an observed one, the normal quantile times sqrt(sd^2 + noise of new cells). The control mean
    cancels between what is predicted and what would be measured. New cells are as noisy as those of the same
    condition elsewhere at the predicted level.
    """
    base = reference.control_level(context)
    delta = answer.mean - base.mean
    n_control = int(reference.bulk.n_cells[reference.group(0, context)])
    noise = expected_noise(reference.alike(answer), answer.mean, n_control if n_cells is None else n_cells)
    if answer.observed:
        half = norm.ppf(0.5 + level / 2) * np.sqrt(answer.sd**2 + noise)
    else:
        calibration = reference.goals.calibration
        half = calibration.quantile(level) * np.sqrt(calibration.variance(delta, answer.sd) + noise)
    return delta - half, delta + half


def expected_error(reference: Reference, answer: Level, context: int) -> float:
    """Expected RMSE of the effect over its root mean square; see `Calibration.expected_error`, uncalibrated if seen."""
    calibration = Calibration() if answer.observed else reference.goals.calibration
    delta = answer.mean - reference.control_level(context).mean
    return calibration.expected_error(delta, answer.sd, context)


def trust_of(reference: Reference, answer: Level, context: int) -> float:
    """Expected share of the squared effect that is explained, 1 / (1 + expected error^2)."""
    return float(1 / (1 + expected_error(reference, answer, context) ** 2))


def trust_of_cells(known: Known, own: Groups, wanted: Groups) -> NDArray[np.float64]:
    """Trust of the group that each cell was asked for, 1 where that is its own group (cells,)."""
    result = np.ones(len(own.code))
    for (before, after), rows in own.pairs(wanted).items():
        if before != after:
            result[rows] = _trust(known, after)
    return result


def _trust(known: Known, group: Group) -> float:
    """Trust in a group; 1 for control, whose effect is zero by definition."""
    return 1.0 if group.is_control else trust_of(known.reference, level_of(known, group), group.context)


def trust_row(known: Known, group: Group) -> dict[str, Any]:
    """Return one row of `CFMVC.get_trust`, that of a group."""
    config, reference = CalibrationConfig(), known.reference
    answer, value = level_of(known, group), _trust(known, group)
    code = reference.condition(group.row)
    seen = [_contexts_that_saw(reference, code) for code in answer.partner_conditions]
    cells = [reference.bulk.n_cells[reference.groups[:, 0] == code].sum() for code in answer.partner_conditions]
    own = reference.group(code, group.context)
    return {
        "context": reference.contexts.names[group.context],
        "trust": value,
        "expected_error": float(np.sqrt(1 / value - 1)) if value else np.inf,
        "word": "high" if value >= config.high else "medium" if value >= config.medium else "low",
        "observed": answer.observed,
        "n_contexts": min(len(codes) for codes in seen),
        "n_cells": int(reference.bulk.n_cells[own] if answer.observed else min(cells)),
        "distance": 0.0 if answer.observed else max(_distance(reference, group.context, codes) for codes in seen),
        "extrapolated": answer.extrapolated,
        "composed": code < 0 and int(np.count_nonzero(group.row)) > 1,
        "calibrated": code > 0 and not answer.observed and reference.goals.calibration.calibrated,
    }


def _contexts_that_saw(reference: Reference, condition: int) -> NDArray[np.int64]:
    """Codes of contexts with control cells in which a condition was observed."""
    seen = reference.groups[reference.groups[:, 0] == condition, 1]
    return np.intersect1d(seen, reference.control_contexts)


def _distance(reference: Reference, context: int, seen: NDArray[np.int64]) -> float:
    """Distance of control profiles to the nearest of the contexts `seen`, over the median of all pairs."""
    if context in seen:
        return 0.0
    rows = reference.control_contexts
    groups = [reference.group(0, int(code)) for code in rows]
    distances = profile_distances(reference.bulk.log_mean[groups], reference.bulk.log_noise[groups])
    nearest = distances[rows == context][:, np.isin(rows, seen)].min()
    return float(nearest / np.median(distances[np.triu_indices(len(rows), 1)]))
