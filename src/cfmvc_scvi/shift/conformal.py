"""How far off predicted effects are: contexts left out one at a time, and what their errors say of a new context."""

from __future__ import annotations

__all__ = ["Calibration", "LeftOut", "calibrate", "check_level", "leave_one_out", "pairs_to_leave_out"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from cfmvc_scvi.config import CalibrationConfig, EffectConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift.goal import effect_goal, with_decoded
from cfmvc_scvi.shift.pseudobulk import PseudoBulk, expected_noise

Array = NDArray[np.float64]

_TINY = np.finfo(float).tiny
_REFERENCE_LEVEL = 0.9  # the quantile that measures the scale of a context's residuals


@dataclass(frozen=True)
class LeftOut:
    """A context that was predicted from the others.

    Parameters
    ----------
    context
        Which.
    error
        Measured less predicted mean log1p CP10k (genes,). The control mean cancels in it.
    delta, sd
        Predicted effect and its standard deviation (genes,).
    noise
        Sampling variance of what was measured (genes,).
    expected_noise
        The same as it would have been expected before (genes,).
    """

    context: int
    error: Array
    delta: Array
    sd: Array
    noise: Array
    expected_noise: Array


def leave_one_out(
    control: PseudoBulk,
    perturbed: PseudoBulk,
    config: EffectConfig,
    contexts: Iterable[int] | None = None,
    decoded: Array | None = None,
) -> list[LeftOut]:
    """Predict observed contexts of a condition as if they had not been observed.

    Two observed contexts suffice, although each is then predicted from a single other one: that is no easier than
    what the model will be asked, so its errors err on the large side.

    Parameters
    ----------
    control, perturbed
        Pseudo-bulks as of `effect_goal`.
    config
        Of `effect_goal`.
    contexts
        Which of the observed contexts to leave out; None is all.
    decoded
        Of `with_decoded`, None if there is none.

    Returns
    -------
    One per context left out; nothing where fewer than two were observed.

    Notes
    -----
    Cost: one `effect_goal` per context left out. Deterministic.
    """
    observed = np.flatnonzero(perturbed.n_cells > 0)
    chosen = observed if contexts is None else np.intersect1d(observed, np.array(list(contexts), dtype=int))
    result = []
    for context in chosen if len(observed) > 1 else ():
        goal = with_decoded(
            effect_goal(control, perturbed, config, exclude=int(context)), decoded, config.decoded_share
        )
        level, others = goal.goal[context], perturbed.take(observed[observed != context])
        result.append(
            LeftOut(
                context=int(context),
                error=perturbed.log_mean[context] - level,
                delta=level - goal.control[context],
                sd=goal.sd[context],
                noise=perturbed.log_noise[context],
                expected_noise=expected_noise(others, level, int(perturbed.n_cells[context])),
            )
        )
    return result


def pairs_to_leave_out(
    condition: NDArray[np.int64], context: NDArray[np.int64], n_genes: int, config: CalibrationConfig
) -> NDArray[np.int64]:
    """Choose which pairs of condition and context to leave out.

    Parameters
    ----------
    condition, context
        Codes of the pairs that were observed (pairs,).
    n_genes
        Genes that are predicted.
    config
        Bounds of the work.

    Returns
    -------
    Positions (chosen,) of pairs whose condition was observed in another context too: contexts in turn, and in each
    context conditions from another start.
    """
    _, code, seen = np.unique(condition, return_inverse=True, return_counts=True)
    usable = np.flatnonzero(seen[code] > 1)
    contexts = np.unique(context[usable])
    turns = []
    for number, name in enumerate(contexts):
        own = usable[context[usable] == name]
        own = own[np.argsort(condition[own], kind="stable")]
        turns.append(np.roll(own, -(number * len(own) // len(contexts))).tolist())
    in_turn = [pair for pair in chain.from_iterable(zip_longest(*turns)) if pair is not None]
    affordable = int(config.work / (n_genes * max(len(np.unique(context)), 1) ** 2))
    most = min(max(affordable, min(len(contexts), config.least_pairs)), config.most_pairs)
    return np.array(in_turn[:most], dtype=np.int64)


@dataclass(frozen=True)
class Calibration:
    r"""What contexts that were left out say of errors in a new context.

    The error of gene g in context k is (a_k - 1) delta_g, a_k ~ (1, amplitude), how strongly the context responds, plus
    its own, of variance sd_g^2: together `variance`. Standardised residuals have a scale s_k in each context, in which
    errors cluster; a new context's is predicted, log s ~ mean + omega sqrt(1 + 1/K) t, Student's t, with a variance
    omega^2 over contexts that is estimated under a prior. Their quantiles are those of a random gene in a random new
    context, and widen as contexts get few.

    That is exact in no finite sample: it assumes contexts (and their log scales, normally distributed) to be
    exchangeable with the one asked for and a new residual to be distributed within contexts as old ones, over their
    scale. Coverage is on average over genes and contexts, never for one gene or one context.

    Parameters
    ----------
    amplitude
        Variance of a context's response strength about the predicted one; 0 where contexts do not tell.
    scores
        Equally likely absolute standardised residuals of a new context, increasing; none if uncalibrated, where
        quantiles are those of the normal distribution.
    inflation
        Squared error over `variance` in a new context; 1 where predictions of the error were right on average.
    inflations
        The same of contexts in which conditions were left out: where predictions of other conditions were far off.
    n_contexts
        How many contexts were left out.

    Notes
    -----
    Dunn, Wasserman & Ramdas 2022, JASA 118:2491, and Lee, Barber & Willett 2023, arXiv:2306.06342, treat groups of
    several measurements without a model of their scale; 90 % then takes nine groups.
    """

    amplitude: float = 0.0
    scores: Array = field(default_factory=lambda: np.empty(0))
    inflation: float = 1.0
    inflations: Mapping[int, float] = field(default_factory=dict)
    n_contexts: int = 0

    @property
    def calibrated(self) -> bool:
        """Whether any context was left out."""
        return self.n_contexts > 0

    def variance(self, delta: Array, sd: Array) -> Array:
        """Variance of the error of a predicted effect, sd^2 + amplitude delta^2 (genes,)."""
        return sd**2 + self.amplitude * delta**2

    def expected_error(self, delta: Array, sd: Array, context: int | None = None) -> float:
        """Expected root mean squared error of a predicted effect over its root mean square; infinite if that is 0.

        Parameters
        ----------
        delta, sd
            Predicted effect and its standard deviation (genes,).
        context
            In which; None or one in which nothing was left out has the inflation of a new one.
        """
        inflation = self.inflation if context is None else self.inflations.get(context, self.inflation)
        signal = float((delta**2).sum())
        return float(np.sqrt(inflation * self.variance(delta, sd).sum() / signal)) if signal else np.inf

    def quantile(self, level: float) -> float:
        """Half-width, in standard deviations, of intervals that should hold a share `level` of genes.

        Raises
        ------
        DataError
            If the level is not between 0 and 1.
        """
        check_level(level)
        if not self.calibrated:
            return float(norm.ppf(0.5 + level / 2))
        return float(np.quantile(self.scores, level, method="inverted_cdf"))


def calibrate(left_out: Sequence[LeftOut], config: CalibrationConfig) -> Calibration:
    """Learn from contexts that were left out, over all conditions; every context weighs the same.

    Parameters
    ----------
    left_out
        Of `leave_one_out`, any number of conditions; none gives an uncalibrated result.
    config
        Priors, and the resolution of quantiles.
    """
    if not left_out:
        return Calibration()
    contexts = sorted({one.context for one in left_out})
    amplitude = max(0.0, float(np.mean(list(_by_context(left_out, _amplitude).values()))))
    learned = Calibration(amplitude)
    inflation, inflations = _inflations(_by_context(left_out, lambda one: _log_excess(one, learned)), left_out, config)
    residuals = [
        np.concatenate([_residual(one, learned) for one in left_out if one.context == context]) for context in contexts
    ]
    return Calibration(amplitude, _new_context(residuals, config), inflation, inflations, len(contexts))


def check_level(level: float) -> None:
    """Refuse a level that is not a share."""
    if not 0 < level < 1:
        raise DataError(f"level is {level}; it must lie between 0 and 1, for example 0.9.")


def _by_context(left_out: Sequence[LeftOut], value: Callable[[LeftOut], float]) -> dict[int, float]:
    """Mean of a value over the conditions left out in each context."""
    values: dict[int, list[float]] = {}
    for one in left_out:
        values.setdefault(one.context, []).append(value(one))
    return {context: float(np.mean(found)) for context, found in values.items()}


def _amplitude(one: LeftOut) -> float:
    """Unbiased square of (response strength - 1): of the weighted slope of errors on effects, less its variance."""
    weight = 1 / np.maximum(one.sd**2 + one.noise, _TINY)
    precision = max((weight * one.delta**2).sum(), _TINY)
    slope = (weight * one.delta * one.error).sum() / precision
    return float(slope**2 - 1 / precision)


def _log_excess(one: LeftOut, learned: Calibration) -> float:
    """Log of the squared error over genes, less its noise (a twentieth at least), over the variance predicted."""
    predicted = max(learned.variance(one.delta, one.sd).sum(), _TINY)
    return float(np.log(max((one.error**2 - one.noise).sum() / predicted, 0.05)))


def _residual(one: LeftOut, learned: Calibration) -> Array:
    variance = learned.variance(one.delta, one.sd) + one.expected_noise
    return np.abs(one.error) / np.sqrt(np.maximum(variance, _TINY))


def _inflations(
    excess: Mapping[int, float], left_out: Sequence[LeftOut], config: CalibrationConfig
) -> tuple[float, dict[int, float]]:
    """Inflation of a new context, drawn towards 1, and of each that was seen, drawn towards that of all."""
    mean = float(np.mean(list(excess.values())))
    overall = mean * len(excess) / (len(excess) + config.inflation_prior)
    inflations = {}
    for context, value in excess.items():
        n = sum(one.context == context for one in left_out)
        inflations[context] = float(np.exp(overall + (value - mean) * n / (n + config.context_prior)))
    return float(np.exp(overall)), inflations


def _new_context(residuals: Sequence[Array], config: CalibrationConfig) -> Array:
    """Equally likely residuals of a new context: all combinations of quantiles of shape and of scale, increasing."""
    scale = np.array([np.quantile(one, _REFERENCE_LEVEL) for one in residuals])
    scale = np.maximum(scale / norm.ppf(0.5 + _REFERENCE_LEVEL / 2), _TINY)
    n, log_scale = len(scale), np.log(scale)
    freedom = config.scale_prior + n - 1
    squares = config.scale_prior * config.scale_sd**2 + ((log_scale - log_scale.mean()) ** 2).sum()
    middle = (np.arange(config.n_quantiles) + 0.5) / config.n_quantiles
    new = log_scale.mean() + np.sqrt(squares / freedom * (1 + 1 / n)) * t.ppf(middle, freedom)
    shape = np.mean([np.quantile(one / s, middle) for one, s in zip(residuals, scale, strict=True)], axis=0)
    return np.sort(np.outer(shape, np.exp(new)).ravel())
