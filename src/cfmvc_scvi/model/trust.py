"""How far an expected effect can be relied on: intervals, trust, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from cfmvc_scvi.config import CalibrationConfig
from cfmvc_scvi.model.cells import Group
from cfmvc_scvi.model.question import level_of
from cfmvc_scvi.model.reference import Level, Reference
from cfmvc_scvi.shift import profile_distances

__all__ = ["effect_interval", "trust_of", "trust_of_cells", "trust_table"]

Array = NDArray[np.float64]


def effect_interval(
    reference: Reference, answer: Level, context: int, level: float, n_cells: int | None
) -> tuple[Array, Array]:
    """Interval of the effect that `n_cells` perturbed cells of a context would show, low and high (genes,).

    Half-width: for a context that was not observed, the calibrated quantile times sqrt(sd^2 + noise of control + noise
    of new cells); for an observed one, the normal quantile times sqrt(sd^2 + noise of new cells). New cells have the
    variance of the context's control cells.
    """
    base = reference.control_level(context)
    control_noise, n_control = base.sd**2, reference.bulk.n_cells[reference.group(0, context)]
    new_noise = control_noise * n_control / (n_control if n_cells is None else n_cells)
    if answer.observed:
        half = norm.ppf(0.5 + level / 2) * np.sqrt(answer.sd**2 + new_noise)
    else:
        factor = reference.calibration().quantile(level, answer.sd)
        half = factor * np.sqrt(answer.sd**2 + control_noise + new_noise)
    delta = answer.mean - base.mean
    return delta - half, delta + half


def trust_of(model: Any, group: Group) -> float:
    """Expected share of the squared effect that is explained; 1 for control, whose effect is zero by definition.

    sum delta^2 / (sum delta^2 + c^2 sum sd^2) over genes; c is the inflation of the calibration, 1 where observed.
    """
    if group.is_control:
        return 1.0
    reference: Reference = model._reference
    answer, base = level_of(model, group), reference.control_level(group.context)
    signal, variance = ((answer.mean - base.mean) ** 2).sum(), (answer.sd**2).sum()
    inflation = 1.0 if answer.observed else reference.calibration().inflation
    return float(signal / max(signal + inflation**2 * variance, np.finfo(float).tiny))


def trust_of_cells(model: Any, own: Sequence[Group], wanted: Sequence[Group]) -> NDArray[np.float64]:
    """Trust of the group that each cell was asked for, 1 where that is its own group (cells,)."""
    value = {group: trust_of(model, group) for group in {b for a, b in zip(own, wanted, strict=True) if a != b}}
    return np.array([1.0 if a == b else value[b] for a, b in zip(own, wanted, strict=True)])


def _row(model: Any, group: Group, config: CalibrationConfig) -> dict[str, Any]:
    """Return one row of `CFMVC.get_trust`."""
    reference: Reference = model._reference
    answer, value = level_of(model, group), trust_of(model, group)
    seen = [_contexts_that_saw(reference, code) for code in answer.partner_conditions]
    cells = [reference.bulk.n_cells[reference.groups[:, 0] == code].sum() for code in answer.partner_conditions]
    own = reference.group(reference.condition(group.row), group.context)
    return {
        "context": reference.contexts.names[group.context],
        "trust": value,
        "word": "high" if value >= config.high else "medium" if value >= config.medium else "low",
        "observed": answer.observed,
        "n_contexts": min(len(codes) for codes in seen),
        "n_cells": int(reference.bulk.n_cells[own] if answer.observed else min(cells)),
        "distance": 0.0 if answer.observed else max(_distance(reference, group.context, codes) for codes in seen),
        "extrapolated": answer.extrapolated,
        "composed": reference.condition(group.row) < 0 and int(np.count_nonzero(group.row)) > 1,
        "calibrated": answer.observed or reference.calibration().calibrated,
    }


def trust_table(model: Any, groups: Sequence[Group]) -> pd.DataFrame:
    """Return the table of `CFMVC.get_trust`, one row per group."""
    return pd.DataFrame([_row(model, group, CalibrationConfig()) for group in groups])


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
