"""The mean of a prediction: expected log1p CP10k of perturbed cells in every context."""

from __future__ import annotations

__all__ = ["EffectGoal", "context_weights", "effect_goal", "with_decoded"]

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift.empirical_bayes import posterior_level
from cfmvc_scvi.shift.links import DepthCurve
from cfmvc_scvi.shift.pseudobulk import PseudoBulk
from cfmvc_scvi.shift.similarity import profile_distances, similarity_weights

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EffectGoal:
    """Expected profile of perturbed cells in each context, at the depth of the context's control cells.

    Parameters
    ----------
    goal
        Mean log1p CP10k (contexts, genes).
    sd
        Posterior standard deviation of `goal`, sampling noise of new cells not included (contexts, genes).
    control
        Mean log1p CP10k of the control cells (contexts, genes); goal - control is the effect.
    stretch
        Factor by which the posterior mean effect was lengthened, 1 where the perturbation was observed (contexts,).
    weights
        Similarity weights (contexts, contexts): row k weighs the other contexts in which the perturbation was
        observed and sums to one, or to zero when there is no other.
    observed
        Whether the context's perturbed cells were used (contexts,).
    """

    goal: Array
    sd: Array
    control: Array
    stretch: Array
    weights: Array
    observed: NDArray[np.bool_]


def effect_goal(
    control: PseudoBulk, perturbed: PseudoBulk, config: EffectConfig, exclude: int | None = None
) -> EffectGoal:
    r"""Empirical-Bayes mean of perturbed cells for all contexts at once.

    A profile gives two estimates of the level (CP10k), which unlike mean log1p CP10k does not depend on depth: the
    level at which cells of these depths have this mean log1p CP10k (robust to a few extreme cells), and the CP10k of
    the summed cells. For each, the posterior mean of log(level + pseudocount) is brought back to mean log1p CP10k at
    the depth of the control cells, and the two are averaged.

    That posterior is a mean of two: under the mixture of scales, which has the smaller squared error but loses many
    small effects of a strong perturbation, and under one wide prior, which keeps what stands out of the noise. The
    second weighs as much as the share of the measured effects' squared length that their noise does not explain, which
    is little where a perturbation does little. Where the perturbation was not observed, the effect delta is lengthened
    (a posterior mean is too short) by

        clip(sqrt(sum_k w_k (|delta_k|^2 - its expected noise) / |delta|^2), lower, upper)

    over the other contexts k with similarity weights w. An observed context keeps essentially its own mean.

    Parameters
    ----------
    control
        Pseudo-bulks of the control cells, one group per context.
    perturbed
        Pseudo-bulks of the perturbed cells, in the same order; groups without cells where unobserved.
    config
        Grids, link, stretch and similarity power.
    exclude
        Context to predict as if its perturbed cells had not been observed.

    Raises
    ------
    DataError
        If contexts or genes differ, a context has no control cells, or no context was observed.

    Notes
    -----
    Cost: twice `posterior_level`. Deterministic.
    """
    observed = _observed(control, perturbed, exclude)
    seen = observed[:, None]
    curve = DepthCurve.at(control.depth_quantiles, config.curve_dispersion)
    perturbed_curve = DepthCurve.at(perturbed.depth_quantiles, config.curve_dispersion)
    level = np.where(seen, perturbed_curve.level(perturbed.log_mean), np.nan)
    measured = np.where(seen, curve.log_mean(level), control.log_mean)

    noise = control.log_noise + perturbed.log_noise * (curve.slope(level) / perturbed_curve.slope(level)) ** 2
    signal = _signal_share((measured - control.log_mean)[observed], noise[observed])
    goal, sd = np.zeros_like(measured), np.zeros_like(measured)
    for weight, known, response in zip(
        (1 - config.bulk_weight, config.bulk_weight),
        _levels(control, curve),
        _levels(perturbed, perturbed_curve),
        strict=True,
    ):
        links = _log_link(*known, config), _log_link(np.where(seen, response[0], np.nan), response[1], config)
        mean, posterior_sd = _posterior(*links, signal, config)
        expected = np.maximum(np.exp(mean) - config.pseudocount, 0.0)
        # the curve only carries the difference from what was measured, so that its misfit cancels
        misfit = measured - curve.log_mean(np.where(seen, response[0], known[0]))
        goal += weight * np.maximum(curve.log_mean(expected) + misfit, 0.0)
        sd += weight * curve.slope(expected) * (expected + config.pseudocount) * posterior_sd

    weights = context_weights(control, perturbed, config, exclude)
    delta = goal - control.log_mean
    squared = np.where(observed, ((measured - control.log_mean) ** 2 - noise).sum(axis=1), 0.0)
    length = np.sqrt(np.maximum(weights @ squared, 0.0) / np.maximum((delta**2).sum(axis=1), np.finfo(float).tiny))
    stretch = np.where(observed, 1.0, np.clip(length, *config.stretch_bounds))
    goal = np.maximum(control.log_mean + stretch[:, None] * delta, 0.0)
    return EffectGoal(goal, sd * stretch[:, None], control.log_mean, stretch, weights, observed)


def with_decoded(goal: EffectGoal, decoded: Array | None, share: float) -> EffectGoal:
    r"""Mean of a goal and of what a decoder expects, in the contexts that were not observed.

    .. math:: c + \frac{|\delta|}{|\delta'|} \delta', \quad
        \delta'_g = (1 - a_g) \delta_g + a_g (\text{decoded}_g - c_g), \quad a_g = a\, v_g / (v_g + \bar v)

    with control c, the goal's effect delta and variance v = sd^2, and its mean weighed by itself,
    :math:`\bar v = \sum v^2 / \sum v`. A gene of which the goal is sure keeps it, as under an estimate of one error
    variance that is added to another; and the effect its length, since a mean of two is shorter than either.

    The two err differently: effects that contexts lend each other gene by gene do not know which genes of a cell go
    together, and a latent shift, decoded from the context's own control cells, knows little of a single gene. The share
    is one for all data: left-out contexts of the training data would not tell it, because the decoder has seen them.

    Parameters
    ----------
    goal
        Empirical-Bayes goal; its sd stays.
    decoded
        Mean log1p CP10k that the decoder expects (contexts, genes), NaN in rows of which it tells nothing.
    share
        a in [0, 1].
    """
    if decoded is None:
        return goal
    told = (~goal.observed & ~np.isnan(decoded).any(axis=1))[:, None]
    tiny, variance = np.finfo(float).tiny, goal.sd**2
    typical = (variance**2).sum(axis=1, keepdims=True) / np.maximum(variance.sum(axis=1, keepdims=True), tiny)
    weight = share * variance / np.maximum(variance + typical, tiny)
    delta = goal.goal - goal.control
    mixed = (1 - weight) * delta + weight * (decoded - goal.control)
    size, before = (np.linalg.norm(effect, axis=1, keepdims=True) for effect in (mixed, delta))
    mean = np.maximum(goal.control + before / np.where(size > 0, size, 1.0) * mixed, 0.0)
    return replace(goal, goal=np.where(told, mean, goal.goal))


def context_weights(
    control: PseudoBulk, perturbed: PseudoBulk, config: EffectConfig, exclude: int | None = None
) -> Array:
    """Similarity weights of each context over the other observed ones, (contexts, contexts).

    Parameters and errors are those of `effect_goal`, of which they are the `weights`.
    """
    observed = _observed(control, perturbed, exclude)
    distances = profile_distances(control.log_mean, control.log_noise)
    weights = np.zeros_like(distances)
    for k in range(len(distances)):
        others = np.flatnonzero(observed & (np.arange(len(distances)) != k))
        if others.size:
            weights[k, others] = similarity_weights(distances[k, others], config.similarity_power)
    return weights


def _posterior(
    control: tuple[Array, Array], perturbed: tuple[Array, Array], signal: float, config: EffectConfig
) -> tuple[Array, Array]:
    """Posterior mean and sd of levels, `signal` of it under the wide prior and the rest under the mixture."""
    wide = posterior_level(*control, *perturbed, replace(config, effect_scales=(config.wide_scale,)))
    mixture = posterior_level(*control, *perturbed, config)
    return signal * wide.mean + (1 - signal) * mixture.mean, signal * wide.sd + (1 - signal) * mixture.sd


def _signal_share(effect: Array, noise: Array) -> float:
    """Share of the squared length of effects (contexts, genes) beyond their noise; noisy contexts count less."""
    weight = 1 / np.maximum(noise.mean(axis=1), np.finfo(float).tiny)
    length = weight @ (effect**2).sum(axis=1)
    return float(np.clip(1 - weight @ noise.sum(axis=1) / length, 0.0, 1.0)) if length > 0 else 0.0


def _levels(bulk: PseudoBulk, curve: DepthCurve) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Level (CP10k) and its sampling variance from the mean log1p CP10k, and from the summed cells, (groups, genes)."""
    level = curve.level(bulk.log_mean)
    return (level, bulk.log_noise / curve.slope(level) ** 2), (bulk.rate, bulk.rate_noise)


def _log_link(level: Array, noise: Array, config: EffectConfig) -> tuple[Array, Array]:
    """log(level + pseudocount) and its sampling variance by the delta method."""
    return np.log(level + config.pseudocount), noise / (level + config.pseudocount) ** 2


def _observed(control: PseudoBulk, perturbed: PseudoBulk, exclude: int | None) -> NDArray[np.bool_]:
    """Check that the two fit; returns which contexts were observed and are not excluded (contexts,)."""
    if control.log_mean.shape != perturbed.log_mean.shape:
        shapes = f"{control.log_mean.shape} and {perturbed.log_mean.shape}"
        raise DataError(f"Control and perturbed pseudo-bulks must have the same (contexts, genes); got {shapes}.")
    empty = np.flatnonzero(control.n_cells == 0)
    if empty.size:
        raise DataError(f"{empty.size} contexts have no control cells (first: {empty[:5].tolist()}); leave them out.")
    observed = perturbed.n_cells > 0
    if exclude is not None and not 0 <= exclude < len(observed):
        raise DataError(f"exclude is {exclude}; it must be one of the contexts 0 .. {len(observed) - 1}.")
    if exclude is not None:
        observed[exclude] = False
    return observed
