"""Effects of perturbations never seen, from features that they share with seen ones."""

from __future__ import annotations

__all__ = ["FeatureRegression", "UnseenEffect"]

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cfmvc_scvi.config import FeatureConfig
from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.shift.shared import calibrated_factor, expected_weights

Array = NDArray[np.float64]

_CHUNK_ELEMENTS = 4_000_000  # doubles in the temporary arrays of one chunk of columns: 32 MB
_PERMUTATION_SEED = 0
_NEGLIGIBLE = 1e-3  # weight of a component below which it is dropped


@dataclass(frozen=True)
class UnseenEffect:
    """Posterior of the effect of an unseen perturbation.

    Parameters
    ----------
    mean, sd
        Posterior mean and standard deviation (columns,).
    weights
        What each seen perturbation lends, over all columns, (seen,): of either sign, to be applied to anything else
        that is linear in the effect, such as latent shifts.
    """

    mean: Array
    sd: Array
    weights: Array


@dataclass(frozen=True)
class _Component:
    """Covariance scale^2 (share K_kernel + (1 - share) I) over perturbations."""

    kernel: int
    share: float
    scale: float


@dataclass(frozen=True)
class _Spectrum:
    """Covariance of the seen perturbations for one kernel and share, whitened by their noise, in its eigenbasis."""

    kernel: int
    share: float
    whiten: Array
    values: Array
    vectors: Array

    def rotate(self, residual: Array) -> _State:
        """Residuals (seen, columns) in the eigenbasis."""
        return _State(self, self.vectors.T @ (self.whiten[:, None] * residual))


@dataclass(frozen=True)
class _State:
    """Residuals of some columns in the eigenbasis of a covariance, (seen, columns)."""

    spectrum: _Spectrum
    rotated: Array

    def _total(self, scale: float, noise: Array) -> Array:
        return scale**2 * self.spectrum.values[:, None] + noise

    def log_likelihood(self, scale: float, noise: Array) -> Array:
        """Log density of each column (columns,), but for a constant; `noise` (columns,)."""
        total = self._total(scale, noise)
        return -0.5 * (self.rotated**2 / total + np.log(total)).sum(axis=0)

    def solve(self, scale: float, noise: Array) -> tuple[Array, Array]:
        """C^-1 times the residuals, and the diagonal of C^-1, (seen, columns) each."""
        total, back = self._total(scale, noise), self.spectrum.whiten[:, None]
        vectors = self.spectrum.vectors
        return back * (vectors @ (self.rotated / total)), back**2 * (vectors**2 @ (1 / total))

    def gain(self, cross: Array, scale: float, noise: Array) -> Array:
        """Weights (seen, columns) of the residuals in the mean of one whose covariances are scale^2 `cross` (seen,)."""
        vectors, whiten = self.spectrum.vectors, self.spectrum.whiten
        rotated = vectors.T @ (whiten * cross)
        return whiten[:, None] * (vectors @ (scale**2 * rotated[:, None] / self._total(scale, noise)))


@dataclass(frozen=True)
class FeatureRegression:
    r"""Gaussian processes over perturbations whose features count as much as leaving perturbations out shows.

    Per column (a gene in a context), over perturbations p with sampling noise of known variance,

        effect_p = c + f_p,   f ~ N(0, s^2 (h K + (1 - h) I)),   K_pq = exp(-|x_p - x_q|^2 / 2 l^2)

    with c what is expected of any (`expected_weights`), and a mixture over the scale s, the share h of what
    features explain, the length l, and features as they are or with columns of unit variance; weights by EM over all
    columns. Perturbations without features have the prior of h = 0. What the mixture adds to c is multiplied by
    `calibrated_factor`, the mixture's closed-form leave-one-out predictions against the effects: features that say
    nothing get the factor 0, and the prediction is c.

    Parameters
    ----------
    effects
        Effects of the seen perturbations (seen, columns).
    noise
        Sampling variances (seen, columns), positive.
    features
        Features of the seen perturbations (seen, features); a row of NaN where there are none.
    config
        Grids of the mixture.

    Raises
    ------
    DataError
        If shapes differ, or fewer than three perturbations were seen.
    NonFiniteError
        If a value is not finite, or a row of features only in part.

    Notes
    -----
    Noise is taken as a product of a factor per perturbation and one per column, so that each covariance is diagonalised
    once for all columns. Cost: kernels x shares eigendecompositions of (seen, seen), and components x columns x seen^2
    operations on at most `config.max_columns` evenly spaced columns. Deterministic.

    The linear counterpart of features for unseen perturbations: Ahlmann-Eltze, Huber and Anders, Nat Methods (2025).
    """

    effects: Array
    noise: Array
    features: Array
    config: FeatureConfig

    def __post_init__(self) -> None:
        if self.effects.ndim != 2 or self.noise.shape != self.effects.shape or len(self.features) != len(self.effects):
            shapes = f"{self.effects.shape}, {self.noise.shape} and {self.features.shape}"
            raise DataError(f"effects and noise must be (seen, columns) and features (seen, features); got {shapes}.")
        if len(self.effects) < 3:
            raise DataError(
                f"{len(self.effects)} perturbations were seen; at least three are needed to say what others may do."
            )
        bad = int((~np.isfinite(self.effects)).sum() + (~(np.isfinite(self.noise) & (self.noise > 0))).sum())
        if bad:
            raise NonFiniteError(
                f"{bad} effects or variances are not finite (or not positive); leave these groups out."
            )
        partly = self._has & ~np.isfinite(self.features).all(axis=1)
        if partly.any():
            raise NonFiniteError(f"The features of {partly.sum()} perturbations are finite only in part; fill them in.")

    @cached_property
    def expected(self) -> Array:
        """What each seen perturbation lends to one of which nothing is known (seen,)."""
        return expected_weights(self.effects, self.noise.mean(axis=1))

    @cached_property
    def factor(self) -> float:
        """How much the features count, in [0, 1]."""
        if self._has.sum() < 3:
            return 0.0
        left_out = np.concatenate([self._left_out(part) for _, part in self._chunks(self._columns)], axis=1)
        left_out[~self._has] = 0.0
        return self._beyond_chance * calibrated_factor(left_out, self._residual[:, self._columns])

    @property
    def _beyond_chance(self) -> float:
        """Positive part of 1 - (z_chance / z)^2 in [0, 1], z how well features align with effects (see class)."""
        known = self._residual[self._has][:, self._columns]
        alike = known @ known.T
        np.fill_diagonal(alike, 0.0)  # that a perturbation is like itself says nothing, and noise is there
        n, rng = len(known), np.random.default_rng(_PERMUTATION_SEED)
        orders = [np.arange(n), *(rng.permutation(n) for _ in range(self.config.permutations))]
        kernels = [
            self._kernel(kernel)[np.ix_(self._has, self._has)]
            for kernel in range(len(self._spaces) * len(self.config.lengths))
        ]
        if not kernels:
            return 0.0
        # (permutations, kernels): the best of all kernels counts, and the best of all for permuted features
        aligned = np.array([[(kernel * alike[np.ix_(order, order)]).sum() for kernel in kernels] for order in orders])
        spread = aligned[1:].std(axis=0)
        z = ((aligned - aligned[1:].mean(axis=0)) / np.where(spread > 0, spread, np.inf)).max(axis=1)
        chance = float(np.quantile(z[1:], 1 - self.config.chance))
        return max(0.0, 1 - (chance / z[0]) ** 2) if z[0] > 0 else 0.0

    def _left_out(self, columns: NDArray[np.int64]) -> Array:
        """Posterior mean of each seen perturbation given the others (seen, columns), beyond what all share."""
        residual = self._residual[:, columns]
        best = np.full(residual.shape, -np.inf)
        mean, total = np.zeros_like(residual), np.zeros_like(residual)
        for _, component, state in self._mixture(columns):
            solved, inverse = state.solve(component.scale, self._column_noise[columns])
            # a component counts by its likelihood without the one left out: the whole one's over the conditional one's
            likelihood = state.log_likelihood(component.scale, self._column_noise[columns])
            likelihood = likelihood - 0.5 * (np.log(inverse) - solved**2 / inverse) + np.log(self._weights[component])
            higher = np.maximum(best, likelihood)
            before, share = np.exp(best - higher), np.exp(likelihood - higher)
            mean = mean * before + share * (residual - solved / inverse)
            total, best = total * before + share, higher
        return mean / total

    def predict(self, features: Array) -> UnseenEffect:
        """Posterior of the effect of a perturbation with these `features` (features,); NaN where it has none.

        Raises
        ------
        DataError
            If there are not as many features as the seen perturbations have.
        """
        if features.shape != self.features.shape[1:]:
            raise DataError(f"{features.shape} features of the unseen one, and {self.features.shape[1:]} of the seen.")
        mean, square, left = (np.zeros(self.effects.shape[1]) for _ in range(3))
        lent, signal = np.zeros(len(self.effects)), 0.0
        for _, part in self._chunks(np.arange(self.effects.shape[1])):
            for share, component, state in self._mixture(part):
                cross = component.share * self._cross(component.kernel, features)
                gain = state.gain(cross, component.scale, self._column_noise[part])
                added = (gain * self._residual[:, part]).sum(axis=0)
                mean[part] += share * added
                square[part] += share * added**2
                left[part] += share * component.scale**2 * np.maximum(1 - cross @ gain, 0.0)
                importance = share * component.scale**2  # of a column: how much perturbations change it at all
                lent += gain @ importance
                signal += importance.sum()
        factor = self.factor if np.isfinite(features).all() else 0.0
        lent *= factor / signal if signal > 0 else 0.0
        expected = self.expected
        # what the mixture is sure of counts in full only as far as the features have proved themselves
        variance = left + square - mean**2 + (1 - factor**2) * mean**2 + expected**2 @ self.noise
        return UnseenEffect(self.common + factor * mean, np.sqrt(variance), expected * (1 - lent.sum()) + lent)

    @property
    def _has(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.features).any(axis=1))

    @cached_property
    def common(self) -> Array:
        """Effect that a further perturbation is expected to have whatever its features (columns,)."""
        return self.expected @ self.effects

    @cached_property
    def _residual(self) -> Array:
        return self.effects - self.common

    @cached_property
    def _column_noise(self) -> Array:
        return np.median(self.noise, axis=0)

    @cached_property
    def _row_noise(self) -> Array:
        return np.median(self.noise / self._column_noise, axis=1)

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        """Columns that weights and factor are estimated on."""
        n = self.effects.shape[1]
        return np.unique(np.linspace(0, n - 1, min(n, self.config.max_columns)).astype(np.int64))

    @cached_property
    def _spaces(self) -> list[tuple[Array, float]]:
        """Scales of the columns of the features, and the mean squared distance of seen perturbations under each."""
        known = self.features[self._has]
        if len(known) < 2:
            return []
        spaces = []
        for scale in (np.ones(known.shape[1]), known.std(axis=0)):
            scale = np.where(scale > 0, scale, 1.0)
            squared = 2 * (known / scale).var(axis=0).sum() * len(known) / (len(known) - 1)
            spaces.append((scale, float(squared)))
        return [space for space in spaces if space[1] > 0]

    def _cross(self, kernel: int, features: Array) -> Array:
        """Kernel of every seen perturbation with one of these features (seen,); zero where either has none."""
        if kernel < 0 or not np.isfinite(features).all():
            return np.zeros(len(self.effects))
        space, length = divmod(kernel, len(self.config.lengths))
        scale, squared = self._spaces[space]
        distance = np.where(self._has, (((self.features - features) / scale) ** 2).sum(axis=1), np.inf)
        return np.exp(-0.5 * distance / (squared * self.config.lengths[length] ** 2))

    def _kernel(self, kernel: int) -> Array:
        space, length = divmod(kernel, len(self.config.lengths))
        scale, squared = self._spaces[space]
        result = np.eye(len(self.effects))
        known = self.features[self._has] / scale
        distance = cdist(known, known, "sqeuclidean")
        result[np.ix_(self._has, self._has)] = np.exp(-0.5 * distance / (squared * self.config.lengths[length] ** 2))
        return result

    @cached_property
    def _spectra(self) -> list[_Spectrum]:
        """Each kernel and share; kernel -1 is the covariance without features."""
        whiten = 1 / np.sqrt(self._row_noise)
        spectra = []
        for kernel in range(-1, len(self._spaces) * len(self.config.lengths)):
            matrix = np.eye(len(whiten)) if kernel < 0 else self._kernel(kernel)
            for share in (0.0,) if kernel < 0 else self.config.shares:
                covariance = share * matrix + (1 - share) * np.eye(len(whiten))
                values, vectors = np.linalg.eigh(whiten[:, None] * covariance * whiten)
                spectra.append(_Spectrum(kernel, share, whiten, np.maximum(values, 0.0), vectors))
        return spectra

    @cached_property
    def _weights(self) -> dict[_Component, float]:
        """Weight of each component that is not negligible, by EM over columns."""
        components = [
            _Component(spectrum.kernel, spectrum.share, scale)
            for spectrum in self._spectra
            for scale in self.config.scales
        ]
        likelihood = np.empty((len(components), len(self._columns)))
        for at, part in self._chunks(self._columns):
            rotated = (spectrum.rotate(self._residual[:, part]) for spectrum in self._spectra)
            rows = [
                state.log_likelihood(scale, self._column_noise[part])
                for state in rotated
                for scale in self.config.scales
            ]
            likelihood[:, at] = rows
        likelihood = np.exp(likelihood - likelihood.max(axis=0))
        weights = np.full(len(components), 1 / len(components))
        for _ in range(self.config.em_iterations):
            share = weights[:, None] * likelihood
            weights = (share / share.sum(axis=0)).sum(axis=1) + self.config.em_prior
            weights /= weights.sum()
        return {c: float(w) for c, w in zip(components, weights, strict=True) if w > _NEGLIGIBLE}

    def _mixture(self, columns: NDArray[np.int64]) -> list[tuple[Array, _Component, _State]]:
        """Posterior share of each component in these columns, with what is needed to predict from it."""
        states = []
        for spectrum in self._spectra:
            own = [c for c in self._weights if (c.kernel, c.share) == (spectrum.kernel, spectrum.share)]
            state = spectrum.rotate(self._residual[:, columns]) if own else None
            states += [(component, state) for component in own if state is not None]
        noise = self._column_noise[columns]
        likelihood = np.array([state.log_likelihood(component.scale, noise) for component, state in states])
        share = np.exp(likelihood - likelihood.max(axis=0))
        share *= np.array([self._weights[component] for component, _ in states])[:, None]
        share /= share.sum(axis=0)
        return [(row, *pair) for row, pair in zip(share, states, strict=True)]

    def _chunks(self, columns: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Parts of the columns that keep memory bounded, with their place."""
        width = max(1, _CHUNK_ELEMENTS // (len(self.effects) * len(self._spectra)))
        for start in range(0, len(columns), width):
            yield slice(start, min(start + width, len(columns))), columns[start : start + width]
