"""Counterfactual counts: how the counts of one group become those of another, and the counts of new cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi._bounded import BoundedDict
from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.model.cells import CellBatch, Group
from cfmvc_scvi.model.engine import Engine
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.shares import Shares
from cfmvc_scvi.observe import (
    ResponseFilter,
    cell_choice,
    cell_rates,
    cell_uniforms,
    count_uniforms,
    couple_counts,
    expected_rate,
    fit_response_filter,
    match_rates,
    mean_rate,
    partner_uniforms,
    perturbed_dispersion,
    redrawn_counts,
    relative_profile,
    residual_dispersion,
    split_dispersion,
)

__all__ = ["Observation", "Plan", "whole"]

Array = NDArray[np.float64]

_MOST_BYTES = 2**29  # of plans and filters, and of lent quantiles, which are `(cells, genes)` of a group


@dataclass(frozen=True)
class Plan:
    """How the counts of one group become those of another: gene rates in CP10k, and the noise they are realised with.

    Attributes
    ----------
    own_rate, rate
        `(genes,)` before and after.
    theta
        `(genes,)` inverse dispersion of what is added.
    partners, partner_probability
        Rows of the panel that lend the noise of their counts.
    mean_fractions
        Mean decoded shares of the reference cells before and after, None where cells are not told apart.
    differences
        Share of the differences between cells that goes into their rates, before and after, one for all genes or
        `(genes,)`.
    """

    own_rate: Array
    rate: Array
    theta: Array
    partners: NDArray[np.int64]
    partner_probability: Array
    mean_fractions: tuple[Array, Array] | None = None
    differences: tuple[float | Array, float | Array] = (0.0, 0.0)


@dataclass
class Observation:
    """Realises counterfactual latents in counts.

    Goals, dispersions and matched rates are computed once per pair of groups from its reference cells; a cell's own
    noise comes from a generator keyed by (seed, draw, cell name, gene), so order, batch size and companions change
    nothing.

    Attributes
    ----------
    engine
        Moves the latents of reference cells.
    heterogeneity
        Share of the flow's differences between cells that goes into their rates, as far as real cells differ as much.
    seed, draw
        Key of the noise.
    config
        Settings.
    """

    engine: Engine
    heterogeneity: float
    seed: int
    draw: int = 0
    config: ObservationConfig = field(default_factory=ObservationConfig)
    _cache: BoundedDict[Any, Any] = field(default_factory=lambda: BoundedDict(_MOST_BYTES, _n_bytes), repr=False)
    _lent: BoundedDict[Any, Any] = field(default_factory=lambda: BoundedDict(_MOST_BYTES, _n_bytes), repr=False)

    def share(self, other: Observation) -> None:
        """Use what an observation with the same arguments has found, and let it use what this finds."""
        self._cache, self._lent = other._cache, other._lent

    @property
    def n_bytes(self) -> int:
        """Size of what was found so far."""
        return self._cache.total + self._lent.total

    def matrix(self, cells: CellBatch, shares: Shares, output: str) -> sp.csr_matrix | Array:
        """Return counts, expected counts (``"rate"``) or expected counts per 10,000 of the cells, `(cells, genes)`."""
        if output == "counts":
            return self.counts(cells, shares)
        depth = np.asarray(cells.counts.sum(axis=1), dtype=float) / 1e4 if output == "rate" else 1.0
        return self.rate(cells, shares) * depth

    def counts(self, cells: CellBatch, shares: Shares) -> sp.csr_matrix:
        """Return coupled counts `(cells, genes)`, CSR; a cell asked for under its own condition keeps its counts."""
        blocks, order = [], []
        for own, wanted, rows in cells.pairs():
            block = cells.counts[rows]
            if own != wanted:
                plan, names = self.plan(own, wanted), cells.names[rows]
                block = whole(block)
                noise = self._noise(names, block, plan)
                block = couple_counts(block, *self._cell_rates(plan, shares, rows), plan.theta, *noise)
            blocks.append(block)
            order.append(rows)
        stacked, rows = sp.vstack(blocks, format="csr"), np.concatenate(order)
        return stacked if (np.diff(rows) > 0).all() else stacked[np.argsort(rows)]

    def followed(self, cells: CellBatch, counts: sp.csr_matrix, before: Array, after: Array) -> sp.csr_matrix:
        """Return `counts` `(cells, genes)` of cells whose latents go from `before` to `after` within their group.

        Each gene goes with the ratio of its decoded shares, at most `largest_profile`; cells whose latent stays keep
        their counts bit for bit.
        """
        result = counts.tolil()
        moves = (before != after).any(axis=1)
        for own, _, members in cells.pairs():
            rows = members[moves[members]]
            if not len(rows):
                continue
            group = own if self.engine.is_seen(own) else own.control()
            rate = mean_rate(whole(self.engine.reference_cells(group, group).counts))
            plan, part = Plan(rate, rate, *self.noise_of(group)), cells.take(rows)
            shares = (self.engine.networks.fractions(z[rows], part.inputs) for z in (before, after))
            ratio = np.minimum(1 / np.divide(*shares), self.config.largest_profile)
            block = whole(counts[rows])
            noise = self._noise(part.names, block, plan, "niche")
            result[rows] = couple_counts(block, rate, rate * ratio, plan.theta, *noise)
        return result.tocsr()

    def rate(self, cells: CellBatch, shares: Shares) -> Array:
        """Return the expected counts per 10,000 of each cell under its wanted condition, `(cells, genes)`.

        They stand for the cell at its own depth. Differences between the responses of cells are shrunk to what is
        expected of them given the noise of the cells' counts; counts keep them in full, as a draw from the cells does.
        """
        result, after = self._rates(cells, shares)
        for own, wanted, rows in cells.pairs():
            response = None if own == wanted else self._response(own, wanted)
            result[rows] = after[rows] if response is None else response(result[rows], after[rows])
        return result

    def _rates(self, cells: CellBatch, shares: Shares) -> tuple[Array, Array]:
        """Return the counts per 10,000 that the latents stand for, before and after, `(cells, genes)` each."""
        before, after = np.empty_like(shares.before), np.empty_like(shares.before)
        for own, wanted, rows in cells.pairs():
            block = shares.before[rows] * self._calibration(own)
            before[rows] = after[rows] = block = block * (1e4 / block.sum(axis=1, keepdims=True))
            if own != wanted:
                plan = self.plan(own, wanted, same_depth=True)
                profiles = self._profiles(plan, shares, rows)
                after[rows] = expected_rate(block, plan.own_rate, plan.rate, profiles)
        return before, after

    def _response(self, own: Group, wanted: Group) -> ResponseFilter | None:
        """Return the filter of the responses of a pair of groups, of its reference cells alone; computed once.

        None where cells are not told apart, and for cells of a condition that was not seen in its context: there are
        no reference cells whose counts could be redrawn.
        """
        if self.heterogeneity == 0 or not self.engine.is_seen(own):
            return None
        key = ("response", own, wanted)
        if key not in self._cache:
            cells = self.engine.reference_cells(own, wanted)
            shares = Shares.of(self.engine.networks, cells, *self.engine.reference_latents(own, wanted))
            before, after = self._rates(cells, shares)
            replicates = (self._change(again) for again in self._remeasured(cells, before))
            self._cache[key] = fit_response_filter(np.log1p(after) - np.log1p(before), replicates, self.config)
        return self._cache[key]

    def _change(self, cells: CellBatch) -> Array:
        """Return the change of log1p CP10k that the latents of cells stand for, `(cells, genes)`."""
        shares = Shares.of(self.engine.networks, cells, *self.engine.latents(cells))
        before, after = self._rates(cells, shares)
        return np.log1p(after) - np.log1p(before)

    def _remeasured(self, cells: CellBatch, rate: Array) -> Iterator[CellBatch]:
        """Iterate over cells of one group with counts drawn anew around their rates `(cells, genes)`, in CP10k."""
        counts = whole(cells.counts)
        mean = rate.mean(axis=0)
        variation = rate.var(axis=0) / np.where(mean > 0, mean, 1.0) ** 2
        theta = residual_dispersion(perturbed_dispersion([counts], np.ones(1), self.config), variation, self.config)
        depth = np.asarray(counts.sum(axis=1)).ravel()
        for number in range(self.config.response_replicates):
            yield cells.with_counts(redrawn_counts(rate, depth, theta, self._uniforms(cells.names, f"again {number}")))

    def _calibration(self, own: Group) -> Array:
        """Return the factor `(genes,)` by which the decoder misses the mean share of a gene in a group of cells."""
        key = ("calibration", own)
        if key not in self._cache:
            group = own if self.engine.is_seen(own) else own.control()
            cells = self.engine.reference_cells(group, group)
            decoded = self.engine.networks.fractions(self.engine.reference_encoded(group), cells.inputs).mean(axis=0)
            self._cache[key] = mean_rate(whole(cells.counts)) / (1e4 * decoded)
        return self._cache[key]

    def plan(self, own: Group, wanted: Group, *, same_depth: bool = False) -> Plan:
        """Return how the counts of `own` become those of `wanted`; computed once.

        With `same_depth` the goal is met at the depths that the reference cells have, as expected counts are at the
        depth of their cell; counts may move their depth, where their noise cannot meet the goal otherwise.

        A condition that was not seen in its context has no cells to match; its rates are those that its control cells
        are predicted to have under it.
        """
        key = (own, wanted, same_depth)
        if key not in self._cache:
            if self.engine.is_seen(own):
                self._cache[key] = self._matched(own, wanted, same_depth)
            else:
                before, after = (self.plan(own.control(), group, same_depth=same_depth) for group in (own, wanted))
                means = after.mean_fractions
                if before.mean_fractions is not None and means is not None:
                    means = before.mean_fractions[1], means[1]
                shares = before.differences[1], after.differences[1]
                self._cache[key] = replace(after, own_rate=before.rate, mean_fractions=means, differences=shares)
        return self._cache[key]

    def goal(self, cells: CellBatch, own: Group, wanted: Group) -> Array:
        """Return the mean log1p CP10k, `(genes,)`, that cells of `own` shall have as `wanted`."""
        depth = np.maximum(np.asarray(cells.counts.sum(axis=1)).ravel(), 1.0)
        level = np.asarray((sp.diags(1e4 / depth) @ cells.counts).log1p().mean(axis=0)).ravel()
        reference = self.engine.reference
        change = reference.level(wanted.row, wanted.context).mean - reference.level(own.row, own.context).mean
        return np.maximum(level + self.engine.strength * change + self._batch_shift(cells, own, wanted), 0.0)

    def depth_change(self, own: Group, wanted: Group) -> float:
        """Return the change of mean log depth that is expected of cells of `own` as `wanted`."""
        reference = self.engine.reference
        before, after = (reference.level(group.row, group.context).depth_change for group in (own, wanted))
        return self.engine.strength * (after - before)

    def noise_of(self, wanted: Group) -> tuple[Array, NDArray[np.int64], Array]:
        """Return the inverse dispersion of a group, the panel's rows that lend it noise, and their probability."""
        level = self.engine.reference.level(wanted.row, wanted.context)
        rows, probability = self._partners(level, wanted)
        panel = self.engine.reference.panel
        kinds, code = np.unique(np.column_stack([panel.condition, panel.context])[rows], axis=0, return_inverse=True)
        code = code.reshape(-1)
        members = [whole(panel.counts[rows[code == kind]]) for kind in range(len(kinds))]
        return perturbed_dispersion(members, np.bincount(code, probability), self.config), rows, probability

    def _matched(self, own: Group, wanted: Group, same_depth: bool) -> Plan:
        cells = self.engine.reference_cells(own, wanted)
        counts = whole(cells.counts)
        own_rate = mean_rate(counts)
        plan = Plan(own_rate, own_rate, *self.noise_of(wanted))
        profiles = None
        if self.heterogeneity > 0:
            shares = Shares.of(self.engine.networks, cells, *self.engine.reference_latents(own, wanted))
            means = shares.before.mean(axis=0), shares.after.mean(axis=0)
            plan = self._with_differences(replace(plan, mean_fractions=means), shares)
            profiles = self._relative(plan, shares.before, shares.after)
        noise = self._noise(cells.names, counts, plan)
        goal, deeper = self.goal(cells, own, wanted), self.depth_change(own, wanted)
        config = self.config
        if same_depth:
            config, deeper = replace(config, match_depth_change=0.0), 0.0
        matched = match_rates(counts, goal, own_rate, plan.theta, *noise, profiles, config, deeper)
        return replace(plan, rate=matched.rate)

    def _with_differences(self, plan: Plan, shares: Shares) -> Plan:
        """Return a plan whose cells differ by the flow as far as real cells do, and whose noise is the rest.

        Before and after are damped alike, so that cells keep their counts where nothing responds.
        """
        undamped = replace(plan, differences=(self.heterogeneity, self.heterogeneity))
        variation = self._relative(undamped, shares.before, shares.after)[1].var(axis=0)
        kept, theta = split_dispersion(plan.theta, variation, self.config)
        share = self.heterogeneity * kept
        return replace(plan, differences=(share, share), theta=theta)

    def _cell_rates(self, plan: Plan, shares: Shares, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return the rates of these cells in CP10k, before and after: `(genes,)` of all, or `(cells, genes)`."""
        if plan.mean_fractions is None:
            return plan.own_rate, plan.rate
        means, (own, wanted), most = plan.mean_fractions, plan.differences, self.config.largest_profile
        before = cell_rates(shares.before[rows], means[0], plan.own_rate, own, most)
        return before, cell_rates(shares.after[rows], means[1], plan.rate, wanted, most)

    def _profiles(self, plan: Plan, shares: Shares, rows: NDArray[np.int64]) -> tuple[Array, Array] | None:
        """Return the rates of these cells relative to their context's, before and after; None if all are alike."""
        if plan.mean_fractions is None:
            return None
        return self._relative(plan, shares.before[rows], shares.after[rows])

    def _relative(self, plan: Plan, *shares: Array) -> tuple[Array, Array]:
        """Return shares `(cells, genes)` before and after relative to their means over the reference cells."""
        assert plan.mean_fractions is not None
        most = self.config.largest_profile
        before, after = (
            relative_profile(share, mean, kept, most)
            for share, mean, kept in zip(shares, plan.mean_fractions, plan.differences, strict=True)
        )
        return before, after

    def _batch_shift(self, cells: CellBatch, own: Group, wanted: Group) -> Array | float:
        """Return the change of mean log1p CP10k, `(genes,)`, that the decoder makes of another batch."""
        if own.batch == wanted.batch:
            return 0.0
        z, networks = self.engine.encode(cells), self.engine.networks
        technical = networks.technical(cells.counts, cells.with_wanted_batch())
        shares = Shares.of(networks, cells, z, np.hstack([z[:, : networks.n_intrinsic], technical]))
        return (np.log1p(1e4 * shares.after) - np.log1p(1e4 * shares.before)).mean(axis=0)

    def _partners(self, level: Level, wanted: Group) -> tuple[NDArray[np.int64], Array]:
        """Return the panel rows that lend their noise to a group, and the probability of each."""
        reference = self.engine.reference
        weight = np.zeros(len(reference.panel.names))
        for condition, of_condition in level.partners:
            share = reference.partner_weights(condition, wanted.context)
            for context in np.flatnonzero(share):
                rows = reference.panel.rows(condition, int(context))
                weight[rows] += of_condition * share[context] / len(rows)
        rows = np.flatnonzero(weight)
        return rows, weight[rows] / weight[rows].sum()

    def _uniforms(self, names: np.ndarray, stream: str) -> Array:
        n_genes = self.engine.reference.panel.counts.shape[1]
        return cell_uniforms(self.seed, names.tolist(), n_genes, f"{stream}-{self.draw}")

    def _noise(
        self, names: np.ndarray, counts: sp.csr_matrix, plan: Plan, stream: str = "thinning"
    ) -> tuple[sp.csr_matrix, Array]:
        """Return the uniforms with which counts `(cells, genes)` of these cells are thinned, and added to."""
        thinning = count_uniforms(self.seed, names.tolist(), counts, f"{stream}-{self.draw}")
        return thinning, self._superposition(names, plan)

    def _superposition(self, names: np.ndarray, plan: Plan) -> Array:
        """Return uniforms `(cells, genes)` with the gene-gene dependence of real cells of the wanted condition."""
        rows = plan.partners[cell_choice(self.seed, names.tolist(), plan.partner_probability, f"partner-{self.draw}")]
        panel = self.engine.reference.panel
        groups = np.column_stack([panel.condition, panel.context])[rows]
        lenders = np.unique(groups, axis=0)
        if len(lenders) == 1:
            members, lent = self._lent_quantiles(*map(int, lenders[0]))
            return lent[np.searchsorted(members, rows)]
        quantiles = np.empty((len(names), len(plan.theta)))
        for condition, context in lenders:
            members, lent = self._lent_quantiles(int(condition), int(context))
            mine = np.flatnonzero((groups == (condition, context)).all(axis=1))
            quantiles[mine] = lent[np.searchsorted(members, rows[mine])]
        return quantiles

    def _lent_quantiles(self, condition: int, context: int) -> tuple[NDArray[np.int64], Array]:
        key = condition, context
        if key not in self._lent:
            panel = self.engine.reference.panel
            rows = panel.rows(condition, context)
            counts = whole(panel.counts[rows])
            theta = perturbed_dispersion([counts], np.ones(1), self.config)
            uniforms = self._uniforms(panel.names[rows], "quantile")
            self._lent[key] = rows, partner_uniforms(counts, theta, uniforms)
        return self._lent[key]


def _n_bytes(value: Any) -> int:
    """Return the size of the arrays in a value of the caches."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    parts = vars(value).values() if is_dataclass(value) else value if isinstance(value, tuple) else ()
    return sum(map(_n_bytes, parts), start=1)


def whole(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Return counts rounded to whole numbers: thinning and superposition know no others (see `allow_non_integer`)."""
    rounded = counts.copy()
    rounded.sum_duplicates()
    rounded.data = np.rint(rounded.data)
    rounded.eliminate_zeros()
    return rounded
