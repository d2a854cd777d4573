"""New cells of a condition: latents that grow out of control cells or of noise, and counts around them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import ndtri

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.model.cells import Group, Groups, with_batch
from cfmvc_scvi.model.plan import Observation, whole
from cfmvc_scvi.observe import (
    cell_choice,
    cell_uniforms,
    couple_counts,
    match_rates,
    relative_profile,
    split_dispersion,
)

__all__ = ["VirtualCells", "VirtualGroup"]

Array = NDArray[np.float64]

_N_REFERENCE = 512  # virtual cells on which the rates of a group are matched


@dataclass(frozen=True)
class _Drawn:
    """New cells: the control cell that each grew from, its depth, the latents and the decoded shares of the genes."""

    rows: NDArray[np.int64]
    depth: Array
    z: Array
    shares: Array


@dataclass(frozen=True)
class _Rates:
    """Gene rates of a group in CP10k, the dispersion around them, and how its cells differ.

    `mean_share` is the mean decoded share of the cells, `differences` what is kept of relative differences from it.
    """

    rate: Array
    theta: Array
    mean_share: Array
    differences: Array


@dataclass(frozen=True)
class VirtualGroup:
    """New cells of one group.

    Attributes
    ----------
    rows
        `(cells,)` row of the panel: the control cell whose depth and technical state the new cell has.
    latent
        `(cells, n_intrinsic)`.
    matrix
        `(cells, genes)` counts, expected counts or expected counts per 10,000.
    """

    rows: NDArray[np.int64]
    latent: Array
    matrix: sp.csr_matrix | Array | None


@dataclass
class VirtualCells:
    r"""Draws new cells of a condition and context.

    .. math:: x_{ig} \sim NB(l_i \, r_g K_{ig} / 10^4, \theta_g)

    with the depth l and the technical state of a random control cell of the context, K the decoded share of the gene
    in the cell relative to the group's mean, as far as real cells differ as much, and gene rates r at which the cells
    meet the level of the condition. The latent behind K grows out of a posterior draw of that control cell, or out of
    Gaussian noise, along the flow. Each cell is a function of (seed, its name).

    Attributes
    ----------
    observation
        Goals, dispersions and the engine.
    """

    observation: Observation
    _rates: dict[Group, _Rates] = field(default_factory=dict, repr=False)

    def draw(self, names: NDArray[np.str_], group: Group, output: str) -> VirtualGroup:
        """Return the cells of these names, `output` as in `CFMVC.sample_cells`."""
        drawn = self._drawn(names, group)
        latent = drawn.z[:, : self.observation.engine.networks.n_intrinsic]
        if output == "latent":
            return VirtualGroup(drawn.rows, latent, None)
        rates = self._matched(group)
        profile = self._profile(drawn.shares, rates.mean_share, rates.differences)
        if output == "counts":
            matrix = _counts_around(rates, drawn.depth, self._uniforms(names), profile)
        else:
            share = rates.rate * profile
            share /= share.sum(axis=1, keepdims=True)
            matrix = share * (drawn.depth[:, None] if output == "rate" else 1e4)
        return VirtualGroup(drawn.rows, latent, matrix)

    def _drawn(self, names: NDArray[np.str_], group: Group) -> _Drawn:
        engine, seed = self.observation.engine, self.observation.seed
        panel = engine.reference.panel
        candidates = engine.reference_rows(group.control())
        rows = candidates[cell_choice(seed, names.tolist(), np.ones(len(candidates)), "reference")]
        cells = panel.take(rows)
        inputs = with_batch(cells.tensors, np.full(len(names), group.batch))
        mean, sd = engine.networks.posterior(cells.counts, inputs)
        noise, n = ndtri(cell_uniforms(seed, names.tolist(), mean.shape[1], "latent")), engine.networks.n_intrinsic
        z = mean + sd * noise
        origin = engine.standardise(z[:, :n]) if engine.source == "control" else noise[:, :n]
        u = engine.grown(origin, Groups.same(group, len(names)), cells.niche)
        z = np.hstack([engine.unstandardise(u), z[:, n:]])
        depth = np.asarray(whole(cells.counts).sum(axis=1)).ravel()
        return _Drawn(rows, depth, z, engine.networks.fractions(z, inputs))

    def _matched(self, group: Group) -> _Rates:
        """Return the rates at which reference draws of the group meet its level; computed once."""
        if group not in self._rates:
            observation, engine = self.observation, self.observation.engine
            own = group.control()
            cells = engine.reference_cells(own, group)
            if not (cells.inputs[CFMVC_REGISTRY_KEYS.BATCH_KEY] == group.batch).all():
                own = Group(
                    own.design, own.context
                )  # no control cells of this batch: the decoder tells what it changes
            goal = observation.goal(cells, own, group)
            names = np.array([f"reference {number}" for number in range(_N_REFERENCE)])
            drawn = self._drawn(names, group)
            mean_share = drawn.shares.mean(axis=0)
            variation = self._profile(drawn.shares, mean_share, observation.heterogeneity).var(axis=0)
            kept, theta = split_dispersion(observation.noise_of(group)[0], variation, observation.config)
            differences = observation.heterogeneity * kept
            profile = self._profile(drawn.shares, mean_share, differences)
            deeper = observation.depth_change(own, group)
            rate = _matching_rates(goal, drawn.depth, theta, self._uniforms(names), profile, observation.config, deeper)
            self._rates[group] = _Rates(rate, theta, mean_share, differences)
        return self._rates[group]

    def _profile(self, shares: Array, mean_share: Array, differences: float | Array) -> Array:
        return relative_profile(shares, mean_share, differences, self.observation.config.largest_profile)

    def _uniforms(self, names: NDArray[np.str_]) -> Array:
        n_genes = self.observation.engine.reference.panel.counts.shape[1]
        return cell_uniforms(self.observation.seed, names.tolist(), n_genes, "new counts")


def _counts_around(rates: _Rates, depth: Array, uniforms: Array, profile: Array) -> sp.csr_matrix:
    """Return NB counts around the rates of a group, `(cells, genes)`."""
    rest, own, size, noise, profiles = _rest_of(depth, rates.theta, uniforms, profile)
    return couple_counts(rest, own, np.append(rates.rate, 0.0) * profiles[1], size, noise, noise)[:, :-1]


def _matching_rates(
    goal: Array,
    depth: Array,
    theta: Array,
    uniforms: Array,
    profile: Array,
    config: ObservationConfig,
    depth_change: float,
) -> Array:
    """Return the gene rates `(genes,)` at which `_counts_around` them have the mean log1p CP10k `goal`."""
    rest, own, size, noise, profiles = _rest_of(depth, theta, uniforms, profile)
    return match_rates(rest, np.append(goal, 0.0), own, size, noise, noise, profiles, config, depth_change).rate[:-1]


def _rest_of(
    depth: Array, theta: Array, uniforms: Array, profile: Array
) -> tuple[sp.csr_matrix, Array, Array, Array, tuple[Array, Array]]:
    """Return the arguments of coupled counts for cells that have nothing yet.

    All of a cell's depth lies in one further gene, the last, which vanishes; what the others gain is NB noise.
    """
    n_cells, n_genes = profile.shape
    rest = sp.csr_matrix((depth, (np.arange(n_cells), np.full(n_cells, n_genes))), shape=(n_cells, n_genes + 1))
    own = np.append(np.zeros(n_genes), 1e4)
    noise = np.column_stack([uniforms, np.full(n_cells, 0.5)])
    after = np.column_stack([profile, np.ones(n_cells)])
    return rest, own, np.append(theta, 1.0), noise, (np.ones_like(after), after)
