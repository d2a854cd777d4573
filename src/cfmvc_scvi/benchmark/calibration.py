"""Do intervals keep their promise, and does trust foretell errors."""

from __future__ import annotations

__all__ = ["MeasuredEffect", "coverage_table", "measured_effect", "relative_error", "stated_scores", "trust_table"]

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.benchmark.cells import StatedEffect
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import pseudo_bulk

Array = NDArray[np.float64]

_COVERAGE = "coverage_"
_KEYS = ["method", "condition", "context", "seed"]


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


def stated_scores(stated: StatedEffect, measured: MeasuredEffect) -> dict[str, float]:
    """Score what was said of an effect against the effect that was measured.

    Returns
    -------
    ``coverage_<level>`` for each interval, level in percent: share of genes whose measured effect lies in it. With a
    trust score ``trust``, ``relative_error`` (see there) and ``correlation_error``, 1 - Pearson correlation of stated
    and measured effect, which is left out where one of them is constant.

    Raises
    ------
    DataError
        If genes differ.
    """
    if np.shape(stated.effect) != np.shape(measured.effect):
        shapes = f"{np.shape(stated.effect)} and {np.shape(measured.effect)}"
        raise DataError(f"stated and measured effects have shapes {shapes}; give the same genes.")
    scores = {
        f"{_COVERAGE}{100 * level:g}": float(((low <= measured.effect) & (measured.effect <= high)).mean())
        for level, (low, high) in stated.intervals.items()
    }
    if np.isnan(stated.trust):
        return scores
    scores |= {"trust": float(stated.trust), "relative_error": relative_error(stated.effect, measured)}
    if np.ptp(stated.effect) > 0 and np.ptp(measured.effect) > 0:
        scores["correlation_error"] = float(1 - np.corrcoef(stated.effect, measured.effect)[0, 1])
    return scores


def coverage_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the coverage of intervals, for `pl.calibration`.

    Parameters
    ----------
    scores
        Tidy table of `evaluate`.

    Returns
    -------
    One row per prediction and level: method, condition, context, seed, nominal (the level) and observed (the share of
    genes whose measured effect lies in the interval). No row where no method states intervals.
    """
    own = scores[scores["metric"].astype(str).str.startswith(_COVERAGE)]
    nominal = own["metric"].str.removeprefix(_COVERAGE).astype(float) / 100
    return own[_KEYS].assign(nominal=nominal, observed=own["value"]).reset_index(drop=True)


def trust_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return trust and errors of the predictions that have a trust score, for `pl.trust`.

    Parameters
    ----------
    scores
        Tidy table of `evaluate`.

    Returns
    -------
    One row per prediction: method, condition, context, seed, trust, error (`relative_error`) and correlation_error (1 -
    Pearson correlation of stated and measured effect; NaN where one is constant). No row where no method has a score.
    """
    names = {"trust": "trust", "relative_error": "error", "correlation_error": "correlation_error"}
    own = scores[scores["metric"].isin(names)]
    wide = own.pivot(index=_KEYS, columns="metric", values="value").reindex(columns=list(names)).rename(columns=names)
    return wide.rename_axis(columns=None).reset_index().dropna(subset="trust", ignore_index=True)


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
