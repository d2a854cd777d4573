"""Mathematics of flows between two sets of cells: callables and tensors, true of any velocity field, no weights."""

from __future__ import annotations

from cfmvc_scvi.flow.coupling import optimal_coupling, random_coupling
from cfmvc_scvi.flow.path import PathSample, straight_path
from cfmvc_scvi.flow.solver import Method, Solution, Velocity, integrate, ode_step, round_trip_error

__all__ = [
    "Method",
    "PathSample",
    "Solution",
    "Velocity",
    "integrate",
    "ode_step",
    "optimal_coupling",
    "random_coupling",
    "round_trip_error",
    "straight_path",
]
