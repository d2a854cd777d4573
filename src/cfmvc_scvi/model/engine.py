"""Counterfactual latents: abduction of the cell, action on its condition, and the flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi._bounded import BoundedDict
from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.model.cells import CellBatch, Group, Groups
from cfmvc_scvi.model.networks import Networks, Solved
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.model.transport import ConditionArrays, abduct, advance, transport

__all__ = ["Engine", "flow_coordinates"]

Array = NDArray[np.float64]

_KEPT = 4096  # residuals and offsets
_RECENT = 32  # latents of reference cells


def flow_coordinates(
    frames: NDArray, reference: Reference, location: NDArray, scale: float, source: str
) -> NDArray[np.float32]:
    """Return frames `(..., contexts, dims)` as shifts (source control) or as centres (source noise) of the flow."""
    centre = 0.0 if source == "control" else reference.context_features() - location
    return ((frames + centre) / scale).astype(np.float32)


@dataclass
class Engine:
    """Moves the latents of cells one by one, with quantities that belong to their condition and context.

    Attributes
    ----------
    networks, reference
        The trained networks, and what the model remembers of its training data.
    source
        ``"control"`` or ``"noise"``.
    solver
        Method and steps of the ODE.
    guidance_scale
        Factor of the flow's effect; 1 is off.
    strength
        Share of the way from the cell as it is to its counterfactual; 1 is all of it.
    residual_damping
        Share of the flow's mean residual over a group that is kept.
    n_solved, n_evaluations
        ODEs solved so far, and evaluations of the velocity that they took.
    """

    networks: Networks
    reference: Reference
    source: Literal["control", "noise"]
    solver: SolverConfig
    guidance_scale: float = 1.0
    strength: float = 1.0
    residual_damping: float = 0.5
    n_solved: int = 0
    n_evaluations: int = 0
    _cache: BoundedDict[Any, Any] = field(default_factory=lambda: BoundedDict(_KEPT), repr=False)
    _recent: BoundedDict[Any, Any] = field(default_factory=lambda: BoundedDict(_RECENT), repr=False)

    def share(self, other: Engine) -> None:
        """Use what an engine of the same networks, reference and options has found, and let it use what this finds."""
        self._cache, self._recent = other._cache, other._recent

    @property
    def solved(self) -> tuple[int, int]:
        """Numbers of ODEs and of evaluations so far."""
        return self.n_solved, self.n_evaluations

    @property
    def _solve(self) -> Callable[..., Solved]:
        return partial(self.networks.solve, solver=self.solver)

    @property
    def _options(self) -> dict[str, Any]:
        return {"source": self.source, "guidance_scale": self.guidance_scale}

    def standardise(self, z_intrinsic: NDArray[np.floating]) -> Array:
        """Return the flow's coordinates u of intrinsic latents, `(cells, n_intrinsic)`."""
        u: Array = (z_intrinsic - self.networks.location) / self.networks.scale
        return u

    def unstandardise(self, u: Array) -> Array:
        """Return the intrinsic latents of the flow's coordinates, `(cells, n_intrinsic)`."""
        return u * self.networks.scale + self.networks.location

    def latents(self, cells: CellBatch) -> tuple[Array, Array]:
        """Return the latents `(cells, n_intrinsic + n_technical)` of the cells: observed, and counterfactual.

        The mean of the flow's residual over a group is damped, its spread kept; a cell asked for under its own
        condition keeps its latent bit for bit.
        """
        z, moved = self.latents_under(cells, [cells.wanted])
        return z, moved[0]

    def latents_under(self, cells: CellBatch, wanted: Sequence[Groups]) -> tuple[Array, list[Array]]:
        """Return the observed latents, and the counterfactual ones under each of several groups; as `latents`.

        Cells are encoded, and their sources sought, once.
        """
        z, n = self.encode(cells), self.networks.n_intrinsic
        asked = [cells.asked(groups) for groups in wanted]
        changed = [np.flatnonzero(each.changed()) for each in asked]
        origin, rows = z[:, :n], np.unique(np.concatenate(changed))
        if len(rows):
            origin = origin.copy()
            origin[rows] = self._abducted(self.standardise(z[rows, :n]), cells, rows)
        return z, [
            self._moved(each, z, origin, mine) if len(mine) else z for each, mine in zip(asked, changed, strict=True)
        ]

    def _abducted(self, u: Array, cells: CellBatch, rows: NDArray[np.int64]) -> Array:
        """Return the sources of these rows of the cells, whose latents in the flow's coordinates are `u`."""
        niche = None if cells.niche is None else cells.niche[rows]
        own = self._conditions(cells.own.take(rows), niche)
        origin, solutions = abduct(self._solve, u, own, source=self.source)
        self._record(solutions)
        return origin

    def _moved(self, cells: CellBatch, z: Array, origin: Array, rows: NDArray[np.int64]) -> Array:
        """Return the latents of cells of which these rows change, from their sources `origin`."""
        niche, groups = None if cells.niche is None else cells.niche[rows], cells.wanted.take(rows)
        u, solutions = advance(self._solve, origin[rows], self._conditions(groups, niche), **self._options)
        self._record(solutions)
        return self._arrived(cells, z, u, rows)

    def _arrived(self, cells: CellBatch, z: Array, u: Array, rows: NDArray[np.int64]) -> Array:
        """Return the latents of cells of which these rows went to `u`, whose mean residuals are not damped yet."""
        n = self.networks.n_intrinsic
        own, groups = cells.own.take(rows), cells.wanted.take(rows)
        for (before, after), members in own.pairs(groups).items():
            u[members] -= (1 - self.residual_damping) * self.residual_mean(before, after)
        if self.strength != 1:
            observed = self.standardise(z[rows, :n])
            u = observed + self.strength * (u - observed)
        result = z.copy()
        result[rows, :n] = self.unstandardise(u)
        result[:, n:] = self._technical(cells, z)
        return result

    def encode(self, cells: CellBatch) -> Array:
        """Return the posterior means `(cells, n_intrinsic + n_technical)`."""
        return self.networks.posterior(cells.counts, cells.inputs)[0]

    def grown(self, origin: Array, groups: Groups, niche: np.ndarray | None) -> Array:
        """Return the latents u that grow out of sources `origin` `(cells, dims)` under the condition of each cell.

        The mean of the residual is damped as for observed cells.
        """
        u, solutions = advance(self._solve, origin, self._conditions(groups, niche), **self._options)
        self._record(solutions)
        residual = groups.spread(lambda group: self.residual_mean(group.control(), group))
        return u - (1 - self.residual_damping) * residual

    def reference_cells(self, own: Group, wanted: Group) -> CellBatch:
        """Return the panel's cells that stand for a group, asked for under another."""
        rows = self.reference_rows(own)
        panel = self.reference.panel.take(rows)
        before, after = (Groups.same(group, len(rows)) for group in (own, wanted))
        return CellBatch(panel.tensors, panel.counts, panel.names, before, after, panel.niche)

    def reference_rows(self, own: Group) -> NDArray[np.int64]:
        """Return the panel's rows of a group: of its batch where it has cells there, else of all."""
        panel = self.reference.panel
        rows = panel.rows(self.reference.condition(own.row), own.context)
        same = panel.tensors[CFMVC_REGISTRY_KEYS.BATCH_KEY][rows].ravel() == own.batch
        return rows[same] if same.any() else rows

    def is_seen(self, group: Group) -> bool:
        """Return whether training had cells of this condition in this context."""
        return self.reference.group(self.reference.condition(group.row), group.context) >= 0

    def residual_mean(self, own: Group, wanted: Group) -> Array:
        """Return the mean residual of the flow over the reference cells of a pair of groups, `(dims,)`.

        For cells of a condition that was not seen in their context: the difference of two residuals of its control
        cells.
        """
        key = ("residual", own, wanted)
        if key not in self._cache:
            if self.is_seen(own):
                self._cache[key] = self._residual_mean(own, wanted)
            else:
                control = own.control()
                self._cache[key] = self.residual_mean(control, wanted) - self.residual_mean(control, own)
        return self._cache[key]

    def _residual_mean(self, own: Group, wanted: Group) -> Array:
        if own == wanted:
            return np.zeros(self.networks.n_intrinsic)
        z, moved = self._transported(own, wanted)
        shift = self._offset(wanted) - self._offset(own)
        mean: Array = (moved - self.standardise(z[:, : self.networks.n_intrinsic]) - shift).mean(axis=0)
        return mean

    def reference_encoded(self, own: Group) -> Array:
        """Return the posterior means of the reference cells of a group, as `encode`."""
        key = ("encoded", own)
        if key not in self._recent:
            self._recent[key] = self.encode(self.reference_cells(own, own))
        return self._recent[key]

    def reference_latents(self, own: Group, wanted: Group) -> tuple[Array, Array]:
        """Return what `latents` gives for the reference cells of a group that was seen, under another."""
        z, moved = self._transported(own, wanted)
        return z, self._arrived(self.reference_cells(own, wanted), z, moved.copy(), np.arange(len(z)))

    def _transported(self, own: Group, wanted: Group) -> tuple[Array, Array]:
        """Return the latents z of the reference cells of a group, and where the flow takes their u."""
        key = ("transported", own, wanted)
        if key not in self._recent:
            cells = self.reference_cells(own, wanted)
            z = self.reference_encoded(own)
            u = self.standardise(z[:, : self.networks.n_intrinsic])
            conditions = (self._conditions(groups, cells.niche) for groups in (cells.own, cells.wanted))
            moved, solutions = transport(self._solve, u, *conditions, **self._options)
            self._record(solutions)
            self._recent[key] = z, moved
        return self._recent[key]

    def _record(self, solutions: list[Solved]) -> None:
        self.n_solved += len(solutions)
        self.n_evaluations += sum(solution.n_evaluations for solution in solutions)

    def _technical(self, cells: CellBatch, z: Array) -> Array:
        """Return the technical latents: the cell's own, or those of another batch at the cell's depth."""
        own = z[:, self.networks.n_intrinsic :]
        if not self.networks.n_technical or not any(group.batch >= 0 for group in cells.wanted.kinds):
            return own
        moved, key = cells.with_wanted_batch(), CFMVC_REGISTRY_KEYS.BATCH_KEY
        same = (moved[key] == cells.inputs[key]).reshape(-1, 1)
        return np.where(same, own, self.networks.technical(cells.counts, moved))

    def _conditions(self, groups: Groups, niche: np.ndarray | None) -> ConditionArrays:
        features = groups.spread(lambda group: self._context_features()[group.context])
        features = features if niche is None else np.hstack([features, niche])
        designs = groups.spread(lambda group: self.reference.lent_design(group.row))
        arrays = (designs, features, groups.spread(self._offset))
        return ConditionArrays(*(np.asarray(array, dtype=np.float64) for array in arrays))

    def _context_features(self) -> np.ndarray:
        if "features" not in self._cache:
            self._cache["features"] = self.standardise(self.reference.context_features())
        return self._cache["features"]

    def _offset(self, group: Group) -> np.ndarray:
        key = ("offset", group.design)
        if key not in self._cache:
            location, scale = self.networks.location, self.networks.scale
            frame = self.reference.frame(group.row)
            self._cache[key] = flow_coordinates(frame, self.reference, location, scale, self.source)
        return self._cache[key][group.context]
