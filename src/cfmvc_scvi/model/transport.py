"""Moving latents from one condition to another along the flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.model.networks import Solved

__all__ = ["ConditionArrays", "Solve", "abduct", "advance", "transport"]

Array = NDArray[np.float64]
Solve = Callable[..., Solved]
"""`Networks.solve` with its solver: state, design, context; ``backwards`` and ``guidance_scale``."""


@dataclass(frozen=True)
class ConditionArrays:
    """A condition per cell: `design` (cells, perturbations), `context` (cells, features), `offset` (cells, dims).

    `offset` is the moving frame in the flow's coordinates: the expected shift (source ``"control"``) or the centre
    (source ``"noise"``) of the condition.
    """

    design: Array
    context: Array
    offset: Array


def transport(
    solve: Solve,
    u: Array,
    own: ConditionArrays,
    wanted: ConditionArrays,
    *,
    source: str,
    guidance_scale: float = 1.0,
) -> tuple[Array, list[Solved]]:
    r"""Return the latents of the same cells under another condition, and the solutions of the ODEs.

    With :math:`T_c` the flow from the source to condition c, the counterfactual is :math:`T_{wanted} \circ
    T_{own}^{-1}`: abduction of the cell's source under its own condition, then the new condition. With
    ``source="control"`` the flow of control is the identity, so a control cell is its own source and nothing is
    inverted.

    Parameters
    ----------
    solve
        Solves the ODE of the flow.
    u
        `(cells, dims)` latents in the flow's coordinates.
    own, wanted
        The condition of each cell, and the one asked for.
    source
        ``"control"`` or ``"noise"``.
    guidance_scale
        Strength of the perturbation's effect on the wanted side; 1 is off.

    Raises
    ------
    NonFiniteError
        If the state of the ODE leaves the finite numbers.
    """
    origin, backward = abduct(solve, u, own, source=source)
    moved, forward = advance(solve, origin, wanted, source=source, guidance_scale=guidance_scale)
    return moved, backward + forward


def abduct(solve: Solve, u: Array, own: ConditionArrays, *, source: str) -> tuple[Array, list[Solved]]:
    """Return the source of each cell under its own condition, `(cells, dims)`, and the solutions of the ODEs.

    Parameters, errors and the meaning of the source as in `transport`.
    """
    shift, centre = _offsets(own, source)
    state, solutions = _run(solve, u - centre, own, source, backwards=True)
    return state - shift, solutions


def advance(
    solve: Solve, origin: Array, wanted: ConditionArrays, *, source: str, guidance_scale: float = 1.0
) -> tuple[Array, list[Solved]]:
    """Return the latent that grows out of each source under a condition, `(cells, dims)`, and the solutions of the ODE.

    `origin` are latents of control cells, or standard Gaussian noise. Other parameters and errors as in `transport`.
    """
    shift, centre = _offsets(wanted, source)
    state, solutions = _run(solve, origin + shift, wanted, source, guidance_scale=guidance_scale)
    return state + centre, solutions


def _offsets(condition: ConditionArrays, source: str) -> tuple[Array, Array]:
    """Return what the offset adds before the flow, and what it adds after it."""
    zero = np.zeros_like(condition.offset)
    return (condition.offset, zero) if source == "control" else (zero, condition.offset)


def _run(
    solve: Solve,
    state: Array,
    condition: ConditionArrays,
    source: str,
    *,
    backwards: bool = False,
    guidance_scale: float = 1.0,
) -> tuple[Array, list[Solved]]:
    """Follow the flow of each cell's condition; from control cells, control itself does not flow."""
    flows = (condition.design != 0).any(axis=1) if source == "control" else np.ones(len(state), dtype=bool)
    if not flows.any():
        return state, []
    design, context = condition.design[flows], condition.context[flows]
    solution = solve(state[flows], design, context, backwards=backwards, guidance_scale=guidance_scale)
    result = state.copy()
    result[flows] = solution.state
    return result, [solution]
