"""Moving latents from one condition to another along the flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.flow import Solution, integrate
from cfmvc_scvi.nn import VelocityField

__all__ = ["ConditionTensors", "abduct", "advance", "transport"]


@dataclass(frozen=True)
class ConditionTensors:
    """A condition per cell: `design` (cells, perturbations), `context` (cells, features), `offset` (cells, dims).

    `offset` is the moving frame in the flow's coordinates: the expected shift (source ``"control"``) or the centre
    (source ``"noise"``) of the condition.
    """

    design: Tensor
    context: Tensor
    offset: Tensor

    def take(self, rows: Tensor) -> ConditionTensors:
        """Return the conditions of these rows."""
        return ConditionTensors(self.design[rows], self.context[rows], self.offset[rows])


def transport(
    field: VelocityField,
    u: Tensor,
    own: ConditionTensors,
    wanted: ConditionTensors,
    *,
    source: str,
    solver: SolverConfig,
    guidance_scale: float = 1.0,
) -> tuple[Tensor, list[Solution]]:
    r"""Return the latents of the same cells under another condition, and the solutions of the ODEs.

    With :math:`T_c` the flow from the source to condition c, the counterfactual is :math:`T_{wanted} \circ
    T_{own}^{-1}`: abduction of the cell's source under its own condition, then the new condition. With
    ``source="control"`` the flow of control is the identity, so a control cell is its own source and nothing is
    inverted.

    Parameters
    ----------
    field
        Velocity field; `field.at(design, context, guidance_scale)` is a function of state and time.
    u
        `(cells, dims)` latents in the flow's coordinates.
    own, wanted
        The condition of each cell, and the one asked for.
    source
        ``"control"`` or ``"noise"``.
    solver
        Method and steps.
    guidance_scale
        Strength of the perturbation's effect on the wanted side; 1 is off.

    Raises
    ------
    NonFiniteError
        If the state of the ODE leaves the finite numbers.
    """
    origin, backward = abduct(field, u, own, source=source, solver=solver)
    moved, forward = advance(field, origin, wanted, source=source, solver=solver, guidance_scale=guidance_scale)
    return moved, backward + forward


def abduct(
    field: VelocityField, u: Tensor, own: ConditionTensors, *, source: str, solver: SolverConfig
) -> tuple[Tensor, list[Solution]]:
    """Return the source of each cell under its own condition, `(cells, dims)`, and the solutions of the ODEs.

    Parameters, errors and the meaning of the source as in `transport`.
    """
    shift, centre = _offsets(own, source)
    state, solutions = _run(field, u - centre, own, source, solver, backwards=True)
    return state - shift, solutions


def advance(
    field: VelocityField,
    origin: Tensor,
    wanted: ConditionTensors,
    *,
    source: str,
    solver: SolverConfig,
    guidance_scale: float = 1.0,
) -> tuple[Tensor, list[Solution]]:
    """Return the latent that grows out of each source under a condition, `(cells, dims)`, and the solutions of the ODE.

    `origin` are latents of control cells, or standard Gaussian noise. Other parameters and errors as in `transport`.
    """
    shift, centre = _offsets(wanted, source)
    state, solutions = _run(field, origin + shift, wanted, source, solver, guidance_scale=guidance_scale)
    return state + centre, solutions


def _offsets(condition: ConditionTensors, source: str) -> tuple[Tensor, Tensor]:
    """Return what the offset adds before the flow, and what it adds after it."""
    zero = torch.zeros_like(condition.offset)
    return (condition.offset, zero) if source == "control" else (zero, condition.offset)


def _run(
    field: VelocityField,
    state: Tensor,
    condition: ConditionTensors,
    source: str,
    solver: SolverConfig,
    *,
    backwards: bool = False,
    guidance_scale: float = 1.0,
) -> tuple[Tensor, list[Solution]]:
    """Follow the flow of each cell's condition; from control cells, control itself does not flow."""
    flows = (
        (condition.design != 0).any(dim=1) if source == "control" else torch.ones_like(state[:, 0], dtype=torch.bool)
    )
    if not flows.any():
        return state, []
    chosen = condition.take(flows)
    velocity = field.at(chosen.design, chosen.context, guidance_scale)
    t_start, t_end = (1.0, 0.0) if backwards else (0.0, 1.0)
    solution = integrate(
        velocity, state[flows], t_start=t_start, t_end=t_end, method=solver.method, n_steps=solver.n_steps
    )
    return state.masked_scatter(flows[:, None], solution.z), [solution]
