"""Do intervals keep their promise, and does trust foretell errors: tables over held-out predictions."""

from __future__ import annotations

__all__ = ["HeldOutEffect", "MeasuredEffect", "coverage_table", "measured_effect", "relative_error", "trust_table"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift import check_level, pseudo_bulk

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredEffect:
    """What held-out cells show.

    Parameters
    ----------
    effect
        Mean log1p CP10k of the perturbed cells minus that of the control cells (genes,).
    noise, control_noise
        Sampling variances of the two means (genes,).
    """

    effect: Array
    noise: Array
    control_noise: Array


def measured_effect(truth_counts: ArrayLike | sp.spmatrix, control_counts: ArrayLike | sp.spmatrix) -> MeasuredEffect:
    """Measure the effect in the held-out cells against the control cells of their context.

    Parameters
    ----------
    truth_counts, control_counts
        UMI counts (cells, genes). The control cells must be those that the model has seen: their mean then cancels
        between predicted and measured effect.

    Raises
    ------
    DataError
        If there are no cells or genes differ.
    """
    truth, control = sp.csr_matrix(truth_counts), sp.csr_matrix(control_counts)
    if truth.shape[1] != control.shape[1] or not truth.shape[0] or not control.shape[0]:
        raise DataError(f"held-out cells {truth.shape}, control cells {control.shape}; give cells of the same genes.")
    perturbed, base = (pseudo_bulk(part, np.zeros(part.shape[0], dtype=int), 1) for part in (truth, control))
    return MeasuredEffect(perturbed.log_mean[0] - base.log_mean[0], perturbed.log_noise[0], base.log_noise[0])


@dataclass(frozen=True)
class HeldOutEffect:
    """A predicted effect with what was said of its uncertainty, and the effect that was measured.

    Parameters
    ----------
    method, fold, condition, context, seed
        Whose prediction of what; `fold` as in the store of a run.
    effect
        Predicted difference of mean log1p CP10k from control (genes,).
    measured
        The truth.
    intervals
        Level, in (0, 1), to the low and high end (genes,) of intervals of the effect that as many cells would show.
    trust
        Score given before, higher for better; NaN where the method gives none.

    Raises
    ------
    DataError
        If shapes differ, a level is not between 0 and 1, or an interval ends before it starts.
    NonFiniteError
        If an effect is NaN or infinite.
    """

    method: str
    fold: str
    condition: str
    context: str
    seed: int
    effect: Array
    measured: MeasuredEffect
    intervals: Mapping[float, tuple[Array, Array]] = field(default_factory=dict)
    trust: float = np.nan

    def __post_init__(self) -> None:
        ends = [end for interval in self.intervals.values() for end in interval]
        shapes = {np.shape(values) for values in (self.effect, self.measured.effect, *ends)}
        if len(shapes) > 1:
            raise DataError(f"{self._name}: effects and intervals have shapes {sorted(shapes)}; give the same genes.")
        n_broken = int((~np.isfinite(self.effect) | ~np.isfinite(self.measured.effect)).sum())
        if n_broken:
            raise NonFiniteError(f"{self._name}: {n_broken} effects are NaN or infinite.")
        for level, (low, high) in self.intervals.items():
            check_level(level)
            n_empty = int((~(low <= high)).sum())
            if n_empty:
                raise DataError(f"{self._name}: {n_empty} intervals of level {level} end before they start or are NaN.")

    @property
    def _name(self) -> str:
        return f"{self.method}, {self.condition} in {self.context}"

    @property
    def keys(self) -> dict[str, str | int]:
        """Columns that name it."""
        names = ("method", "fold", "condition", "context", "seed")
        return {name: getattr(self, name) for name in names}


def coverage_table(predictions: Iterable[HeldOutEffect]) -> pd.DataFrame:
    """Return the share of genes whose measured effect lies in its interval, for `pl.calibration`.

    Returns
    -------
    One row per prediction and level: method, fold, condition, context, seed, nominal (the level), observed (the share)
    and n (genes).

    Raises
    ------
    DataError
        If no prediction has intervals.
    """
    rows = []
    for one in predictions:
        for level, (low, high) in sorted(one.intervals.items()):
            inside = (low <= one.measured.effect) & (one.measured.effect <= high)
            rows.append({**one.keys, "nominal": level, "observed": float(inside.mean()), "n": len(inside)})
    if not rows:
        raise DataError("No prediction has intervals, so there is no coverage; pass those of methods that give some.")
    return pd.DataFrame(rows)


def trust_table(predictions: Iterable[HeldOutEffect]) -> pd.DataFrame:
    """Return trust and errors of the predictions that have a trust score, for `pl.trust`.

    Returns
    -------
    One row per prediction: method, fold, condition, context, seed, trust, error (`relative_error`) and
    correlation_error (1 - Pearson correlation of predicted and measured effect; NaN where one is constant).

    Raises
    ------
    DataError
        If no prediction has a trust score.
    """
    rows = []
    for one in predictions:
        if np.isnan(one.trust):
            continue
        varies = np.ptp(one.effect) > 0 and np.ptp(one.measured.effect) > 0
        apart = float(1 - np.corrcoef(one.effect, one.measured.effect)[0, 1]) if varies else np.nan
        error = relative_error(one.effect, one.measured)
        rows.append({**one.keys, "trust": one.trust, "error": error, "correlation_error": apart})
    if not rows:
        raise DataError("No prediction has a trust score; pass those of methods that give one.")
    return pd.DataFrame(rows)


def relative_error(effect: ArrayLike, measured: MeasuredEffect) -> float:
    r"""Root mean squared error of a predicted effect over the root mean square of the true one, both without noise.

    .. math:: \sqrt{\sum_g (\hat\Delta_g - \Delta_g)^2 - v_g \over \sum_g \Delta_g^2 - v_g - c_g}

    with the sampling variances v of the perturbed and c of the control mean, which cancels in the error. The numerator
    is at least 0; the denominator at least its standard error without an effect, sqrt(2 sum (v + c)^2). 1 is what "no
    effect" scores.

    Parameters
    ----------
    effect
        Predicted difference of mean log1p CP10k (genes,).
    measured
        The truth.
    """
    both = measured.noise + measured.control_noise
    wrong = ((np.asarray(effect) - measured.effect) ** 2 - measured.noise).sum()
    signal = max((measured.effect**2 - both).sum(), np.sqrt(2 * (both**2).sum()))
    return float(np.sqrt(max(wrong, 0.0) / signal))
