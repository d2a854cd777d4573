"""What perturbations tell of each other: a level that they share, and effects of those never seen, from features."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi._bounded import BoundedDict
from cfmvc_scvi.config import EffectConfig, FeatureConfig
from cfmvc_scvi.shift import (
    FeatureRegression,
    PseudoBulk,
    depth_changes,
    inner_products,
    interpolate_dose,
    own_gene_fold,
    shared_of_products,
)

__all__ = ["Embeddings", "Relatives", "UnseenShift"]

Array = NDArray[np.float64]

_KEPT = 16  # regressions, one for each dose
_MOST_BYTES = 2**28  # of weights, `(contexts, conditions)` of each condition
_MOST_LENDERS = 512  # single perturbations whose common shift is sought: more of them do not make it better known
_SAME = 1e-5  # largest relative difference between equal doses, in whatever unit they are
_PSEUDOCOUNT = EffectConfig().pseudocount


@dataclass(frozen=True)
class Embeddings:
    """What is known of perturbations beside their cells.

    Attributes
    ----------
    values
        `(perturbations, features)`; a row of NaN where nothing is known.
    named
        `(perturbations,)` whether the user named it among those with features, if only to say that it has none.
    own_gene
        `(perturbations,)` column of the gene of the same name, -1 where there is none.
    """

    values: Array
    named: NDArray[np.bool_]
    own_gene: NDArray[np.int64]


@dataclass(frozen=True)
class UnseenShift:
    """Effect of a perturbation without cells, in every context with control cells.

    Attributes
    ----------
    mean, sd
        `(contexts, genes)` posterior of the shift in mean log1p CP10k.
    weights
        `(seen,)` what each seen perturbation lends.
    conditions
        `(seen,)` code of the condition that stands for each, its dose the nearest.
    """

    mean: Array
    sd: Array
    weights: Array
    conditions: NDArray[np.int64]


@dataclass
class Relatives:
    """Single perturbations of the training data, as neighbours of each other.

    Attributes
    ----------
    designs
        `(conditions, perturbations)`; row 0 is control.
    groups
        `(groups, 2)` condition and context of each group.
    bulk
        Pseudo-bulk of the groups.
    embeddings
        Features, or None.
    """

    designs: NDArray[np.float32]
    groups: NDArray[np.int64]
    bulk: PseudoBulk
    embeddings: Embeddings | None = None
    config: FeatureConfig = field(default_factory=FeatureConfig)
    _fits: BoundedDict[float, tuple[list[int], FeatureRegression]] = field(
        default_factory=lambda: BoundedDict(_KEPT), repr=False
    )
    _shared: BoundedDict[int, Array] = field(
        default_factory=lambda: BoundedDict(_MOST_BYTES, lambda weights: weights.nbytes), repr=False
    )

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """Group of each condition in each context with control cells, -1 where not seen, (conditions, contexts)."""
        contexts = np.sort(self.groups[self.groups[:, 0] == 0, 1])
        table = np.full((len(self.designs), len(contexts)), -1)
        inside = np.flatnonzero(np.isin(self.groups[:, 1], contexts))
        table[self.groups[inside, 0], np.searchsorted(contexts, self.groups[inside, 1])] = inside
        return table

    def condition(self, design: NDArray[np.float32]) -> int:
        """Return the code of a design row, -1 where it was not seen."""
        alike = self._codes.get(_pattern(design), [])
        found = np.flatnonzero(np.isclose(self.designs[alike], design, rtol=_SAME, atol=0.0).all(axis=1))
        return alike[found[0]] if len(found) else -1

    @cached_property
    def _codes(self) -> dict[bytes, list[int]]:
        """Codes of the conditions of the same perturbations, whatever their doses."""
        found: dict[bytes, list[int]] = {}
        for code, design in enumerate(self.designs):
            found.setdefault(_pattern(design), []).append(code)
        return found

    @cached_property
    def _part(self) -> NDArray[np.int64]:
        """The one perturbation of each condition, -1 of control and of combinations, (conditions,)."""
        present = self.designs != 0
        return np.where(present.sum(axis=1) == 1, present.argmax(axis=1) if present.size else 0, -1)

    @cached_property
    def _lenders(self) -> list[tuple[NDArray[np.int64], Array]]:
        """Single perturbations seen in each context, of many some, and the inner products of their shifts."""
        found = []
        for rows in self._table.T:
            codes = np.flatnonzero((self._part >= 0) & (rows >= 0))
            if len(codes) > _MOST_LENDERS:
                codes = codes[np.linspace(0, len(codes) - 1, _MOST_LENDERS).astype(np.int64)]
            found.append((codes, inner_products(self.bulk.log_mean[rows[codes]] - self.bulk.log_mean[rows[0]])))
        return found

    def alone(self, part: int) -> NDArray[np.int64]:
        """Return the codes of the conditions that are this perturbation by itself, at any dose."""
        return np.flatnonzero(self._part == part)

    def shared_weights(self, condition: int) -> Array:
        """Return how much the cells of each condition count in what others lead to expect, `(contexts, conditions)`.

        Row k weighs the other single perturbations in context k (of more than 512, some 512 evenly chosen) by their
        `shared_shift`, and control by the rest. A combination is expected to do the sum of what its parts do, so that
        what is learnt of it over contexts is their interaction; where a part was not seen by itself at this dose in
        some context, only control counts. Computed once.
        """
        part = int(self._part[condition])
        lends = any((self._part[codes] == part).any() for codes, _ in self._lenders)
        key = condition if part < 0 or lends else -1  # of those that lend nothing, all are expected to do the same
        if key not in self._shared:
            self._shared[key] = self._shared_weights(condition)
        return self._shared[key]

    def _shared_weights(self, condition: int) -> Array:
        weights = np.zeros(self._table.T.shape)
        weights[:, 0] = 1.0
        part = self._part[condition]
        if part < 0:
            return self._additive_weights(condition, weights)
        for context, (codes, products) in enumerate(self._lenders):
            others = np.flatnonzero(self._part[codes] != part)
            if len(others):
                lent = shared_of_products(products[np.ix_(others, others)]).weights
                weights[context, codes[others]] = lent
                weights[context, 0] = 1 - lent.sum()
        return weights

    def _additive_weights(self, condition: int, control: Array) -> Array:
        design = self.designs[condition]
        weights = control.copy()
        for part in np.flatnonzero(design):
            same = [
                code
                for code in self.alone(int(part))
                if np.isclose(self.designs[code, part], design[part], rtol=_SAME, atol=0.0)
            ]
            if not same or (self._table[same[0]] < 0).any():
                return control
            weights[:, same[0]] = 1.0
            weights[:, 0] -= 1.0
        return weights

    def mixed(self, weights: Array, values: Array) -> Array:
        """Return the sums over conditions of `weights` `(contexts, conditions)` times `values` of their groups.

        A condition has weight only where it was seen. `values` `(groups, columns)`; the sums `(contexts, columns)`.
        """
        result = np.zeros((len(weights), values.shape[1]))
        for context, rows in enumerate(self._table.T):
            chosen = np.flatnonzero(weights[context])
            result[context] = weights[context, chosen] @ values[rows[chosen]]
        return result

    def expected(self, condition: int) -> PseudoBulk:
        """Return the pseudo-bulk that cells would have if this perturbation did only what the others share.

        One group per context with control cells; without at least three others, that of the control cells.
        """
        control = self.bulk.take(self._table[0])
        weights = self.shared_weights(condition)
        if (weights[:, 0] == 1).all():
            return control
        log_mean, log_noise = self.mixed(weights, self.bulk.log_mean), self.mixed(weights**2, self.bulk.log_noise)
        if (weights < 0).any():  # a combination: effects add up in logs, and the depth is that of control
            rate, rate_noise = self._multiplied(weights)
            return replace(
                control, log_mean=np.maximum(log_mean, 0.0), log_noise=log_noise, rate=rate, rate_noise=rate_noise
            )
        return replace(
            control,
            log_mean=log_mean,
            log_noise=log_noise,
            rate=self.mixed(weights, self.bulk.rate),
            rate_noise=self.mixed(weights**2, self.bulk.rate_noise),
            depth_quantiles=self.mixed(weights, self.bulk.depth_quantiles),
        )

    def _multiplied(self, weights: Array) -> tuple[Array, Array]:
        """Return CP10k `(contexts, genes)` whose logs are mixed, and its sampling variance."""
        logs = np.log(self.bulk.rate + _PSEUDOCOUNT)
        noise = self.bulk.rate_noise / (self.bulk.rate + _PSEUDOCOUNT) ** 2
        level = np.exp(self.mixed(weights, logs))
        return np.maximum(level - _PSEUDOCOUNT, 0.0), self.mixed(weights**2, noise) * level**2

    @cached_property
    def depth_changes(self) -> Array:
        """Expected change of the cells' mean log depth from control, `(conditions, contexts)`."""
        n_cells = np.where(self._table >= 0, self.bulk.n_cells[self._table], 0)
        return depth_changes(self.bulk.depth_quantiles[self._table], n_cells)

    def is_described(self, part: int) -> bool:
        """Return whether features were given for a perturbation, or that it has none."""
        return self.embeddings is not None and bool(self.embeddings.named[part])

    def unseen(self, part: int, dose: float) -> UnseenShift:
        """Return the effect of a perturbation that has no cells of its own, at a dose.

        Raises
        ------
        DataError
            If fewer than three perturbations were seen by themselves.
        """
        assert self.embeddings is not None  # checked by `is_described`
        seen, regression = self._fit(dose)
        effect = regression.predict(self.embeddings.values[part])
        shape = (self._table.shape[1], self.bulk.n_genes)
        mean = effect.mean.reshape(shape)
        own = self.embeddings.own_gene[part]
        if own >= 0:
            control = self.bulk.log_mean[self._table[0], own]
            level = np.exp(np.maximum(control + mean[:, own], 0.0)) - 0.5
            after = np.log(np.maximum(level * np.exp(self._own_fold(seen, regression)) + 0.5, 1.0))
            mean[:, own] = after - control
        conditions = np.array([self._nearest(other, dose) for other in seen])
        return UnseenShift(mean, effect.sd.reshape(shape), effect.weights, conditions)

    def lent(self, shift: UnseenShift, values: Array, dose: float) -> Array:
        """Return the shift `(contexts, columns)` of any values of groups `(groups, columns)` by the same weights."""
        seen, _ = self._fit(dose)
        return sum(weight * self._at_dose(part, dose, values) for weight, part in zip(shift.weights, seen, strict=True))

    def lenders(self, dose: float) -> list[int]:
        """Return the perturbations that were seen by themselves."""
        return self._fit(dose)[0]

    def _fit(self, dose: float) -> tuple[list[int], FeatureRegression]:
        if dose not in self._fits:
            assert self.embeddings is not None
            candidates = [part for part in range(self.designs.shape[1]) if len(self.alone(part))]
            seen = [part for part in candidates if (self._table[self.alone(part)] >= 0).any()]
            shape = (len(seen), self._table.shape[1] * self.bulk.n_genes)
            effects = np.array([self._at_dose(part, dose, self.bulk.log_mean) for part in seen]).reshape(shape)
            noise = np.array([self._noise(self._nearest(part, dose)) for part in seen]).reshape(shape)
            self._fits[dose] = seen, FeatureRegression(effects, noise, self.embeddings.values[seen], self.config)
        return self._fits[dose]

    def _nearest(self, part: int, dose: float) -> int:
        codes = self.alone(part)
        codes = codes[(self._table[codes] >= 0).any(axis=1)]
        return int(codes[np.argmin(np.abs(np.log1p(self.designs[codes, part]) - np.log1p(dose)))])

    def _at_dose(self, part: int, dose: float, values: Array) -> Array:
        """Return the shift of a seen perturbation in all contexts `(contexts, columns)`, interpolated over dose."""
        codes = self.alone(part)
        codes = codes[(self._table[codes] >= 0).any(axis=1)]
        shifts = np.stack([self._shift(int(code), values) for code in codes])
        doses = self.designs[codes, part].astype(float)
        return interpolate_dose(doses, shifts.reshape(len(codes), -1), dose)[0].reshape(shifts.shape[1:])

    def _shift(self, condition: int, values: Array) -> Array:
        """Return the shift of a condition `(contexts, columns)`; its mean over the others where it was not seen."""
        rows = self._table[condition]
        shift = values[rows] - values[self._table[0]]
        shift[rows < 0] = shift[rows >= 0].mean(axis=0)
        return shift

    def _noise(self, condition: int) -> Array:
        """Return the sampling variance of that shift `(contexts, genes)`, contexts being drawn where it is a mean."""
        rows = self._table[condition]
        noise = self.bulk.log_noise[rows]
        known = self._shift(condition, self.bulk.log_mean)[rows >= 0]
        noise[rows < 0] = noise[rows >= 0].mean(axis=0) + known.var(axis=0)
        return noise

    def _own_fold(self, seen: list[int], regression: FeatureRegression) -> float:
        """Return the log fold change of a perturbation's own gene beyond what others do to it."""
        assert self.embeddings is not None
        own = self.embeddings.own_gene[seen]
        targeted = np.flatnonzero(own >= 0)
        shape = (-1, self._table.shape[1], self.bulk.n_genes)
        effects, common = regression.effects.reshape(shape), regression.common.reshape(shape)[0]
        control = self.bulk.log_mean[self._table[0]]
        before = [(control + common)[:, own[row]].mean() for row in targeted]
        after = [(control + effects[row])[:, own[row]].mean() for row in targeted]
        return own_gene_fold(np.maximum(before, 0.0), np.maximum(after, 0.0))


def _pattern(design: NDArray[np.float32]) -> bytes:
    """Return which perturbations a condition has, as bytes."""
    return np.flatnonzero(np.asarray(design) > 0).tobytes()
