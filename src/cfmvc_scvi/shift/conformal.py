"""How far off predicted effects are: residuals of contexts left out one at a time, and quantiles of them."""

from __future__ import annotations

__all__ = ["Calibration", "LeftOut", "calibrate", "check_level", "leave_one_out"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from cfmvc_scvi.config import CalibrationConfig, EffectConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift.goal import effect_goal
from cfmvc_scvi.shift.pseudobulk import PseudoBulk

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """A context that was predicted from the others.

    Parameters
    ----------
    context
        Which.
    residual
        |measured - predicted| in units of sqrt(sd^2 + noise of control + noise of perturbed) (genes,).
    sd
        Predicted standard deviation (genes,).
    excess
        Squared error over all genes, less the sampling noise of the perturbed mean, over the sum of sd^2.
    """

    context: int
    residual: Array
    sd: Array
    excess: float


def leave_one_out(control: PseudoBulk, perturbed: PseudoBulk, config: EffectConfig) -> list[LeftOut]:
    """Predict each observed context of a condition as if it had not been observed.

    Two observed contexts suffice, although each is then predicted from a single other one: that is no easier than
    what the model will be asked, so its residuals err on the wide side.

    Parameters
    ----------
    control, perturbed
        Pseudo-bulks as of `effect_goal`.
    config
        Of `effect_goal`.

    Returns
    -------
    One per observed context; nothing where fewer than two were observed.

    Notes
    -----
    Cost: one `effect_goal` per observed context. Deterministic. The control mean cancels in the error; its noise is
    part of the scale only.
    """
    observed = np.flatnonzero(perturbed.n_cells > 0)
    result = []
    for context in observed if len(observed) > 1 else ():
        goal = effect_goal(control, perturbed, config, exclude=int(context))
        error, sd = perturbed.log_mean[context] - goal.goal[context], goal.sd[context]
        noise = perturbed.log_noise[context]
        residual = np.abs(error) / np.sqrt(sd**2 + control.log_noise[context] + noise)
        excess = (error**2 - noise).sum() / np.maximum((sd**2).sum(), np.finfo(float).tiny)
        result.append(LeftOut(int(context), residual, sd, float(excess)))
    return result


@dataclass(frozen=True)
class Calibration:
    r"""Quantiles of standardised residuals, overall and in bins of the predicted sd.

    Guarantee: were the K contexts and the new one exchangeable and the predictor fixed, the overall quantile at level
    q would cover a random gene of the new context with probability at least q K / (K + 1) (hierarchical conformal
    prediction). What weakens it: the predictor is fitted again for each context left out; contexts that were measured
    need not be like the one asked for; few contexts. Coverage is on average over genes and contexts, never for one
    gene or one context. Bins bring it closer to what holds for genes of similar sd.

    Parameters
    ----------
    edges
        Inner limits of the bins of sd (bins - 1,).
    scores
        Increasing residuals of each bin, the last of all bins together.
    mass
        Cumulative weight of each score; every context weighs the same.
    inflation
        Root of the squared error over the variance predicted: 1 where predicted sd are right on average.
    n_contexts
        How many contexts were left out; 0 means uncalibrated: normal quantiles, `inflation` 1.
    prior
        Residuals' worth of the overall quantile in the quantile of each bin.

    Notes
    -----
    Lei et al. 2018, JASA 113:1094 (split conformal); Dunn, Wasserman & Ramdas 2022, JASA 118:2491 (pooled
    distributions of groups); Lee, Barber & Willett 2023, arXiv:2306.06342 (groups of several measurements).
    """

    edges: Array
    scores: tuple[Array, ...]
    mass: tuple[Array, ...]
    inflation: float
    n_contexts: int
    prior: float

    @property
    def calibrated(self) -> bool:
        """Whether there was any residual to calibrate on."""
        return self.n_contexts > 0

    def quantile(self, level: float, sd: Array) -> Array:
        """Half-width, in standard deviations, of intervals that should hold a share `level` (genes,).

        A bin's quantile is the smallest residual whose cumulative weight is at least level (n + 1) / n, n being the
        residuals in the bin, averaged n : `prior` with the overall one. It is infinite where the level asks for more
        residuals than there are.

        Parameters
        ----------
        level
            Between 0 and 1.
        sd
            Predicted standard deviations (genes,).

        Raises
        ------
        DataError
            If the level is not between 0 and 1.
        """
        check_level(level)
        if not self.calibrated:
            return np.full(np.shape(sd), norm.ppf(0.5 + level / 2))
        values = [_quantile(scores, mass, level) for scores, mass in zip(self.scores, self.mass, strict=True)]
        n = np.array([len(scores) for scores in self.scores[:-1]])
        pooled = (n * np.array(values[:-1]) + self.prior * values[-1]) / (n + self.prior)
        return pooled[np.searchsorted(self.edges, sd, side="right")]


def calibrate(left_out: Sequence[LeftOut], config: CalibrationConfig) -> Calibration:
    """Quantiles and inflation of contexts that were left out, over all conditions.

    Parameters
    ----------
    left_out
        Of `leave_one_out`, any number of conditions; none gives an uncalibrated result.
    config
        Bins and their pooling.
    """
    if not left_out:
        return Calibration(np.empty(0), (), (), 1.0, 0, config.bin_prior)
    residual, sd = (np.concatenate([getattr(one, key) for one in left_out]) for key in ("residual", "sd"))
    context = np.repeat([one.context for one in left_out], [len(one.sd) for one in left_out])
    edges = np.unique(np.quantile(sd, np.linspace(0, 1, config.n_bins + 1)[1:-1]))
    edges = edges[edges > sd.min()]  # no bin is empty
    bins = np.searchsorted(edges, sd, side="right")
    scores, mass = [], []
    for chosen in [*(bins == number for number in range(len(edges) + 1)), np.ones(len(sd), dtype=bool)]:
        order = np.argsort(residual[chosen], kind="stable")
        _, code, size = np.unique(context[chosen], return_inverse=True, return_counts=True)
        scores.append(residual[chosen][order])
        mass.append(np.cumsum((1 / (len(size) * size[code]))[order]))
    names = np.array([one.context for one in left_out])
    excess = np.array([one.excess for one in left_out])
    per_context = [excess[names == name].mean() for name in np.unique(names)]
    inflation = float(np.sqrt(max(np.mean(per_context), 0.0)))
    return Calibration(edges, tuple(scores), tuple(mass), inflation, len(per_context), config.bin_prior)


def check_level(level: float) -> None:
    """Refuse a level that is not a share."""
    if not 0 < level < 1:
        raise DataError(f"level is {level}; it must lie between 0 and 1, for example 0.9.")


def _quantile(scores: Array, mass: Array, level: float) -> float:
    """Smallest score with at least the finite-sample level of mass; infinite where there is none."""
    wanted = level * (len(scores) + 1) / len(scores)
    position = int(np.searchsorted(mass, wanted - 1e-9))
    return float(scores[position]) if position < len(scores) else np.inf
