"""Counterfactual latents: abduction of the cell, action on its condition, and the flow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from torch import Tensor

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.flow import Solution
from cfmvc_scvi.model.cells import CellBatch, Group, Groups, panel_tensors
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.module import CFMVCModule, ConditionTensors, advance, transport
from cfmvc_scvi.module.transport import abduct
from cfmvc_scvi.nn import VelocityField

__all__ = ["Engine"]

Array = NDArray[np.float64]


@dataclass
class Engine:
    """Moves the latents of cells one by one, with quantities that belong to their condition and context.

    The networks run in double precision: the last bits of a matrix product depend on the size of the minibatch, and in
    single precision they would now and then decide whether a count is drawn.

    Attributes
    ----------
    module, reference
        The trained networks (copied), and what the model remembers of its training data.
    source
        ``"control"`` or ``"noise"``.
    in_flow_coordinates
        Turns frames `(contexts, dims)` into offsets of the flow.
    solver
        Method and steps of the ODE.
    guidance_scale
        Factor of the flow's effect; 1 is off.
    strength
        Share of the way from the cell as it is to its counterfactual; 1 is all of it.
    residual_damping
        Share of the flow's mean residual over a group that is kept.
    solutions
        Of all ODEs so far.
    """

    module: CFMVCModule
    reference: Reference
    source: Literal["control", "noise"]
    in_flow_coordinates: Callable[[np.ndarray], np.ndarray]
    solver: SolverConfig
    guidance_scale: float = 1.0
    strength: float = 1.0
    residual_damping: float = 0.5
    solutions: list[Solution] = field(default_factory=list)
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.module = copy.deepcopy(self.module).eval()
        if self.device.type != "mps":  # which has no double precision
            self.module.double()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.module.latent_location.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return self.module.latent_location.dtype

    @property
    def _flow(self) -> VelocityField:
        assert self.module.flow is not None  # models without perturbations are refused before
        return self.module.flow

    @property
    def _options(self) -> dict[str, Any]:
        return {"source": self.source, "solver": self.solver, "guidance_scale": self.guidance_scale}

    def latents(self, cells: CellBatch) -> tuple[Tensor, Tensor]:
        """Return the latents `(cells, n_intrinsic + n_technical)` of the cells: observed, and counterfactual.

        The mean of the flow's residual over a group is damped, its spread kept; a cell asked for under its own
        condition keeps its latent bit for bit.
        """
        z, moved = self.latents_under(cells, [cells.wanted])
        return z, moved[0]

    def latents_under(self, cells: CellBatch, wanted: Sequence[Groups]) -> tuple[Tensor, list[Tensor]]:
        """Return the observed latents, and the counterfactual ones under each of several groups; as `latents`.

        Cells are encoded, and their sources sought, once.
        """
        z, n = self.encode(cells.tensors), self.module.n_intrinsic
        asked = [cells.asked(groups) for groups in wanted]
        changed = [np.flatnonzero(each.changed()) for each in asked]
        origin, rows = z[:, :n], np.unique(np.concatenate(changed))
        if len(rows):
            origin = origin.clone()
            origin[rows] = self._abducted(self.module.standardise(z[rows, :n]), cells, rows)
        return z, [
            self._moved(each, z, origin, mine) if len(mine) else z for each, mine in zip(asked, changed, strict=True)
        ]

    def _abducted(self, u: Tensor, cells: CellBatch, rows: NDArray[np.int64]) -> Tensor:
        """Return the sources of these rows of the cells, whose latents in the flow's coordinates are `u`."""
        niche = None if cells.niche is None else cells.niche[rows]
        own = self._conditions(cells.own.take(rows), niche, u)
        origin, solutions = abduct(self._flow, u, own, source=self.source, solver=self.solver)
        self.solutions.extend(solutions)
        return origin

    def _moved(self, cells: CellBatch, z: Tensor, origin: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Return the latents of cells of which these rows change, from their sources `origin`."""
        n = self.module.n_intrinsic
        niche = None if cells.niche is None else cells.niche[rows]
        own, groups = cells.own.take(rows), cells.wanted.take(rows)
        u, solutions = advance(self._flow, origin[rows], self._conditions(groups, niche, origin), **self._options)
        self.solutions.extend(solutions)
        for (before, after), members in own.pairs(groups).items():
            u[members] -= (1 - self.residual_damping) * self.residual_mean(before, after)
        if self.strength != 1:
            start = self.module.standardise(z[rows, :n])
            u = start + self.strength * (u - start)
        result = z.clone()
        result[rows, :n] = self.module.unstandardise(u)
        result[:, n:] = self._technical(cells, z)
        return result

    def encode(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the posterior means `(cells, n_intrinsic + n_technical)`."""
        return self.posterior(tensors).loc

    def posterior(self, tensors: dict[str, Tensor]) -> torch.distributions.Normal:
        """Return the posterior of cells."""
        return self.module.inference(**self.module._get_inference_input(tensors))["qz"]

    def fractions(self, z: Tensor, tensors: dict[str, Tensor]) -> Array:
        """Return the expected share of each gene in the counts of each cell, `(cells, genes)`."""
        return self.module.decode_fractions(z, tensors).double().cpu().numpy()

    def grown(self, origin: Tensor, groups: Groups, niche: np.ndarray | None) -> Tensor:
        """Return the latents u that grow out of sources `origin` `(cells, dims)` under the condition of each cell.

        The mean of the residual is damped as for observed cells.
        """
        u, solutions = advance(self._flow, origin, self._conditions(groups, niche, origin), **self._options)
        self.solutions.extend(solutions)
        residual = groups.spread(lambda group: self.residual_mean(group.control(), group).cpu().numpy())
        return u - (1 - self.residual_damping) * u.new_tensor(residual)

    def reference_cells(self, own: Group, wanted: Group) -> CellBatch:
        """Return the panel's cells that stand for a group, asked for under another."""
        rows = self.reference_rows(own)
        panel = self.reference.panel.take(rows)
        tensors = panel_tensors(panel, own, self.device, self.dtype)
        before, after = (Groups.same(group, len(rows)) for group in (own, wanted))
        return CellBatch(tensors, panel.counts, panel.names, before, after, panel.niche)

    def reference_rows(self, own: Group) -> NDArray[np.int64]:
        """Return the panel's rows of a group: of its batch where it has cells there, else of all."""
        panel = self.reference.panel
        rows = panel.rows(self.reference.condition(own.row), own.context)
        same = panel.tensors[REGISTRY_KEYS.BATCH_KEY][rows].ravel() == own.batch
        return rows[same] if same.any() else rows

    def is_seen(self, group: Group) -> bool:
        """Return whether training had cells of this condition in this context."""
        return self.reference.group(self.reference.condition(group.row), group.context) >= 0

    def residual_mean(self, own: Group, wanted: Group) -> Tensor:
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

    def _residual_mean(self, own: Group, wanted: Group) -> Tensor:
        cells = self.reference_cells(own, wanted)
        u = self.module.standardise(self.encode(cells.tensors)[:, : self.module.n_intrinsic])
        if own == wanted:
            return torch.zeros_like(u[0])
        shift = u.new_tensor(self._offset(wanted) - self._offset(own))
        return (self._transport(u, cells) - u - shift).mean(dim=0)

    def _transport(self, u: Tensor, cells: CellBatch) -> Tensor:
        own, wanted = (self._conditions(groups, cells.niche, u) for groups in (cells.own, cells.wanted))
        moved, solutions = transport(self._flow, u, own, wanted, **self._options)
        self.solutions.extend(solutions)
        return moved

    def _technical(self, cells: CellBatch, z: Tensor) -> Tensor:
        """Return the technical latents: the cell's own, or those of another batch at the cell's depth."""
        own = z[:, self.module.n_intrinsic :]
        if not self.module.n_technical or not any(group.batch >= 0 for group in cells.wanted.kinds):
            return own
        moved = cells.with_wanted_batch()
        same = moved[REGISTRY_KEYS.BATCH_KEY] == cells.tensors[REGISTRY_KEYS.BATCH_KEY]
        return torch.where(same.reshape(-1, 1), own, self.module.technical_posterior_mean(moved))

    def _conditions(self, groups: Groups, niche: np.ndarray | None, like: Tensor) -> ConditionTensors:
        features = groups.spread(lambda group: self._context_features()[group.context])
        features = features if niche is None else np.hstack([features, niche])
        designs = groups.spread(lambda group: self.reference.lent_design(group.row))
        arrays = (designs, features, groups.spread(self._offset))
        return ConditionTensors(*(like.new_tensor(array) for array in arrays))

    def _context_features(self) -> np.ndarray:
        if "features" not in self._cache:
            location, scale = self.module.latent_location.cpu().numpy(), float(self.module.latent_scale)
            self._cache["features"] = (self.reference.context_features() - location) / scale
        return self._cache["features"]

    def _offset(self, group: Group) -> np.ndarray:
        key = ("offset", group.design)
        if key not in self._cache:
            self._cache[key] = self.in_flow_coordinates(self.reference.frame(group.row))
        return self._cache[key][group.context]
