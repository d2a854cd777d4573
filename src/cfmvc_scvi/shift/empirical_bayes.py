"""Empirical-Bayes level of a perturbed population in every context, borrowing across contexts."""

from __future__ import annotations

__all__ = ["EffectPosterior", "posterior_level"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift.similarity import context_kernel, kernel, profile_distances

Array = NDArray[np.float64]

_CHUNK_ELEMENTS = 2_000_000  # doubles in the largest temporary array: 16 MB
_NEGLIGIBLE = 1e-12  # share of a component in a gene below which it is not evaluated


@dataclass(frozen=True)
class EffectPosterior:
    """Posterior of the perturbed level.

    Parameters
    ----------
    mean
        Posterior mean (contexts, genes), in the link of the input.
    sd
        Posterior standard deviation (contexts, genes).
    weights
        Weight of each component of the mixture (components,), sums to one.
    """

    mean: Array
    sd: Array
    weights: Array


@dataclass(frozen=True)
class _Grid:
    """Components: each control covariance (K, K) with each response, 1 - kappa and effect covariances (n, K, K)."""

    controls: list[Array]
    responses: list[tuple[float, Array]]

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.controls) * sum(len(effects) for _, effects in self.responses)


@dataclass(frozen=True)
class _Data:
    """Centred levels and noise of all control rows (K, genes) and of the perturbed rows `seen` (n_seen, genes)."""

    control: Array
    control_noise: Array
    perturbed: Array
    perturbed_noise: Array
    seen: NDArray[np.int64]

    def take(self, genes: slice) -> _Data:
        """Some of the genes."""
        control, perturbed = self.control[:, genes], self.perturbed[:, genes]
        return _Data(control, self.control_noise[:, genes], perturbed, self.perturbed_noise[:, genes], self.seen)


@dataclass(frozen=True)
class _Prior:
    """Perturbed level without its effect, given the control data: mean (K, genes), covariance (K, K, genes)."""

    mean: Array
    covariance: Array


def posterior_level(
    control: Array,
    control_noise: Array,
    perturbed: Array,
    perturbed_noise: Array,
    config: EffectConfig,
    distances: Array | None = None,
) -> EffectPosterior:
    r"""Posterior mean and sd of the perturbed level in all contexts, per gene.

    Per gene, over contexts k, observed with independent noise of known variance,

        control    y0_k = mu + b_k                    b ~ N(0, t^2 S_l0)
        perturbed  y1_k = mu + (1 - kappa) b_k + e_k  e ~ N(0, s^2 (rho 11' + (1 - rho) C_l)),   mu ~ N(mean y0, m^2)

    with S_l = exp(-D^2 / 2 l^2) and C_l, the `context_kernel`, in which effects may also be linear in the control
    profile: a mixture over (t, s, kappa, rho), its weights by EM over all genes. A context
    that was observed conditions on its own data too; one that was not borrows from the others.

    Parameters
    ----------
    control
        Control pseudo-bulk in a link such as mean log1p CP10k (contexts, genes).
    control_noise
        Its sampling variance (contexts, genes).
    perturbed
        Perturbed pseudo-bulk (contexts, genes); a row of NaN where the perturbation was not observed.
    perturbed_noise
        Its sampling variance (contexts, genes); unobserved rows are not read.
    config
        Grids of the mixture.
    distances
        Distances between contexts (contexts, contexts), in any unit; noise-corrected ones of `control` when not given.

    Raises
    ------
    DataError
        If shapes differ or no context was observed.
    NonFiniteError
        If an input that is needed is not finite.

    Notes
    -----
    Cost: components x genes x contexts^3 operations; memory is bounded by chunks of genes, but for components x genes
    log-likelihoods. Deterministic.
    """
    seen = _seen(control, control_noise, perturbed, perturbed_noise)
    if distances is None:
        distances = profile_distances(control, control_noise)
    grid = _grid(distances, config)
    center = control.mean(axis=0)
    data = _Data(
        control - center,
        control_noise + config.noise_floor,
        perturbed[seen] - center,
        perturbed_noise[seen] + config.noise_floor,
        seen,
    )
    chunks = _chunks(grid, control.shape, len(seen))

    likelihood = np.empty((grid.size, control.shape[1]))
    for genes in chunks:
        likelihood[:, genes] = _log_likelihood(grid, data.take(genes), config)
    likelihood = np.exp(likelihood - likelihood.max(axis=0))
    weights = _mixture_weights(likelihood, config)
    share = weights[:, None] * likelihood
    share /= share.sum(axis=0)

    mean, square = np.empty_like(control), np.empty_like(control)
    for genes in chunks:
        mean[:, genes], square[:, genes] = _moments(grid, data.take(genes), share[:, genes], config)
    return EffectPosterior(mean + center, np.sqrt(np.maximum(square - mean**2, 0.0)), weights)


def _seen(control: Array, control_noise: Array, perturbed: Array, perturbed_noise: Array) -> NDArray[np.int64]:
    """Validate shapes and values; returns the contexts whose perturbed cells were observed."""
    shapes = {a.shape for a in (control, control_noise, perturbed, perturbed_noise)}
    if len(shapes) > 1 or control.ndim != 2:
        raise DataError(f"Levels and noises must share one shape (contexts, genes); got {sorted(shapes)}.")
    seen = np.flatnonzero(~np.isnan(perturbed).all(axis=1))
    if not seen.size:
        raise DataError(
            f"The perturbation was observed in none of the {len(control)} contexts; nothing to borrow from."
        )
    for name, values in (
        ("control", control),
        ("control_noise", control_noise),
        ("perturbed", perturbed[seen]),
        ("perturbed_noise", perturbed_noise[seen]),
    ):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise NonFiniteError(
                f"{bad} values of {name} are not finite; drop the contexts without cells or the bad genes."
            )
    return seen


def _grid(distances: Array, config: EffectConfig) -> _Grid:
    """The mixture's components; those without effect (s = 0) come once per t, with kappa = 0: genes that stay."""
    local = context_kernel(distances, config.effect_locality)
    scales = [s for s in config.effect_scales if s > 0]
    effects = [s**2 * (rho + (1 - rho) * local) for s in scales for rho in config.sharings]
    responses = [(1 - kappa, np.array(effects)) for kappa in config.shrinkages] if effects else []
    if 0 in config.effect_scales:
        responses.append((1.0, np.zeros((1, *distances.shape))))
    control_kernel = kernel(distances, config.control_locality)
    return _Grid([t**2 * control_kernel for t in config.control_scales], responses)


def _chunks(grid: _Grid, shape: tuple[int, int], n_seen: int) -> list[slice]:
    """Slices of genes that keep the largest temporary array bounded."""
    most = max(len(effects) for _, effects in grid.responses)
    width = max(1, _CHUNK_ELEMENTS // (most * n_seen * (n_seen + shape[0])))
    return [slice(start, min(start + width, shape[1])) for start in range(0, shape[1], width)]


def _components(grid: _Grid, data: _Data, config: EffectConfig) -> Iterator[tuple[_Prior, Array, Array]]:
    """Prior given the control data, effect covariances and log p(control) (genes,), for each t and kappa in order.

    With x = mu + b the control truth and V its prior covariance plus the noise N, everything follows from V^-1: given
    y0, x has mean y0 - N V^-1 y0 and covariance N - N V^-1 N; the level without effect is (1 - kappa) x + kappa mu.
    """
    noise = data.control_noise
    wide = config.mean_scale**2
    for covariance in grid.controls:
        total = (wide + covariance)[None] + noise.T[:, :, None] * np.eye(len(noise))
        inverse = np.moveaxis(np.linalg.inv(total), 0, -1)
        solved, ones = np.einsum("ijg,jg->ig", inverse, data.control), inverse.sum(axis=1)
        density = -0.5 * (data.control * solved).sum(axis=0) - 0.5 * np.linalg.slogdet(total)[1]
        truth, overall = data.control - noise * solved, wide * solved.sum(axis=0)
        spread = -noise[:, None] * noise * inverse
        spread[np.arange(len(noise)), np.arange(len(noise))] += noise
        shared, overall_variance = wide * noise * ones, wide - wide**2 * ones.sum(axis=0)
        for kept, effects in grid.responses:
            rest = 1 - kept
            mixed = kept * rest * (shared[:, None] + shared) + rest**2 * overall_variance
            yield _Prior(kept * truth + rest * overall, kept**2 * spread + mixed), effects, density


def _eliminate(rows: Array) -> None:
    """Cholesky of V = L L', the first n rows of (rows, n, ...), in place; every further row w becomes w L^-T."""
    for j in range(rows.shape[1]):
        rows[j, j] = np.sqrt(rows[j, j])
        rows[j + 1 :, j] /= rows[j, j]
        for i in range(j + 1, rows.shape[1]):
            rows[i:, i] -= rows[i:, j] * rows[i, j]


def _log_likelihood(grid: _Grid, data: _Data, config: EffectConfig) -> Array:
    """Log density of control and seen perturbed levels, up to a constant, of each component, (components, genes)."""
    m, diagonal = len(data.seen), np.arange(len(data.seen))
    pick = np.ix_(data.seen, data.seen)
    densities = []
    for prior, effects, control_density in _components(grid, data, config):
        rows = np.empty((m + 1, m, len(effects), data.control.shape[1]))
        rows[:m] = prior.covariance[pick][:, :, None] + np.moveaxis(effects, 0, -1)[pick][..., None]
        rows[diagonal, diagonal] += data.perturbed_noise[:, None]
        rows[m] = (data.perturbed - prior.mean[data.seen])[:, None]
        _eliminate(rows)
        log_root = np.log(rows[diagonal, diagonal]).sum(axis=0)
        densities.append(control_density - 0.5 * (rows[m] ** 2).sum(axis=0) - log_root)
    return np.concatenate(densities)


def _mixture_weights(likelihood: Array, config: EffectConfig) -> Array:
    """Weights of the components by EM over genes, from likelihoods (components, genes) with maximum 1 per gene."""
    weights = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(config.em_iterations):
        weights = weights * (likelihood @ (1 / (weights @ likelihood))) + config.em_prior
        weights /= weights.sum()
    return weights


def _moments(grid: _Grid, data: _Data, share: Array, config: EffectConfig) -> tuple[Array, Array]:
    """First and second moment of the perturbed level, (K, genes), by `share` (components, genes)."""
    n, m, n_genes = len(data.control), len(data.seen), data.control.shape[1]
    first, second = np.zeros((n, n_genes)), np.zeros((n, n_genes))
    start = 0
    for prior, effects, _ in _components(grid, data, config):
        part = share[start : start + len(effects)]
        start += len(effects)
        component, gene = np.nonzero(part > _NEGLIGIBLE)
        effect = np.moveaxis(effects, 0, -1)
        cross = prior.covariance[:, data.seen][:, :, gene] + effect[:, data.seen][:, :, component]
        residual = (data.perturbed - prior.mean[data.seen])[:, gene]
        rows = np.concatenate([cross[data.seen], cross, residual[None]])
        rows[np.arange(m), np.arange(m)] += data.perturbed_noise[:, gene]
        _eliminate(rows)
        mean = prior.mean[:, gene] + np.einsum("kjp,jp->kp", rows[m:-1], rows[-1])
        own = np.einsum("kkg->kg", prior.covariance)[:, gene] + np.einsum("kkc->kc", effect)[:, component]
        square = own - (rows[m:-1] ** 2).sum(axis=1) + mean**2
        for k in range(n):
            first[k] += np.bincount(gene, part[component, gene] * mean[k], n_genes)
            second[k] += np.bincount(gene, part[component, gene] * square[k], n_genes)
    return first, second
