"""Fixed-step solvers of dz/dt = v(z, t), forward and backward in time."""

from __future__ import annotations

__all__ = ["Method", "Solution", "Velocity", "integrate", "ode_step", "round_trip_error"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from cfmvc_scvi.errors import DataError, NonFiniteError

Method: TypeAlias = Literal["euler", "midpoint", "heun", "rk4"]

#: Velocity (cells, dimensions) at a state (cells, dimensions) and a scalar time.
Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """End of a trajectory and what it cost.

    Parameters
    ----------
    z
        State at the end time, shape (cells, dimensions).
    status
        "success", or "empty_interval" if start and end time agree and the state is the one passed in. A failure is
        never a status: it raises.
    n_steps
        Steps taken.
    n_evaluations
        Calls of the velocity field: 1 (euler), 2 (midpoint, heun) or 4 (rk4) per step.
    """

    z: Tensor
    status: Literal["success", "empty_interval"]
    n_steps: int
    n_evaluations: int


def integrate(
    field: Velocity,
    z: Tensor,
    *,
    t_start: float = 0.0,
    t_end: float = 1.0,
    method: Method,
    n_steps: int,
) -> Solution:
    """Follow a velocity field from `t_start` to `t_end` in equal steps; `t_end` < `t_start` runs it backward.

    Field and state run with autocast disabled, and a state of less than 32 bits is widened to float32: rounding a state
    to bfloat16 at each step costs more than the solver's own error. Gradients flow through the trajectory.

    Parameters
    ----------
    field
        Called with the state (cells, dimensions) and the time, a tensor of shape (); returns the velocity in the
        shape of the state.
    z
        State at `t_start`, shape (cells, dimensions).
    t_start
        Path time of `z`.
    t_end
        Path time of the result.
    method
        Error per step size h: euler h, midpoint and heun h^2, rk4 h^4. Never invert with euler.
    n_steps
        Number of equal steps.

    Raises
    ------
    NonFiniteError
        If a state or velocity becomes NaN or infinite: names step, time, number of cells and the first row.
    DataError
        If an argument is out of range, or the velocity does not have the shape of the state.

    References
    ----------
    Hairer, Norsett and Wanner, Solving ordinary differential equations I, 2nd edition, section II.1.

    Examples
    --------
    >>> solution = integrate(lambda z, t: -z, torch.ones(3, 2), method="rk4", n_steps=4)
    >>> round(solution.z[0, 0].item(), 4), solution.n_evaluations
    (0.3679, 16)
    """
    if method not in _STEPS:
        raise DataError(f"method is {method!r}; choose one of {', '.join(_STEPS)}")
    if n_steps < 1:
        raise DataError(f"n_steps is {n_steps}; pass at least 1 (5 is usual)")
    if z.ndim != 2 or not z.is_floating_point():
        raise DataError(f"z has shape {tuple(z.shape)} and type {z.dtype}; pass a real matrix (cells, dimensions)")
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    _require_finite(z, "state", f"before the first step, t = {t_start:.4g}")
    if t_start == t_end:
        return Solution(z=z, status="empty_interval", n_steps=0, n_evaluations=0)
    n_evaluations = 0
    where = ""

    def checked(state: Tensor, t: Tensor) -> Tensor:
        nonlocal n_evaluations
        n_evaluations += 1
        velocity = field(state, t)
        if velocity.shape != state.shape:
            raise DataError(f"the velocity has shape {tuple(velocity.shape)}, the state {tuple(state.shape)}")
        _require_finite(velocity, "velocity", where)
        return velocity.to(state.dtype)

    dt = (t_end - t_start) / n_steps
    with torch.autocast(device_type=z.device.type, enabled=False):
        for step in range(n_steps):
            t = t_start + step * dt
            where = f"in step {step + 1} of {n_steps} ({method}), t = {t:.4g}"
            z = ode_step(checked, z, z.new_tensor(t), dt, method=method)
            _require_finite(z, "state", where)
    return Solution(z=z, status="success", n_steps=n_steps, n_evaluations=n_evaluations)


def ode_step(field: Velocity, z: Tensor, t: Tensor, dt: float | Tensor, *, method: Method) -> Tensor:
    """Take one step of `integrate`, unchecked: plain tensor arithmetic without control flow, fit for tracing.

    Parameters
    ----------
    field
        Velocity field.
    z
        State at time `t`, shape (cells, dimensions).
    t
        Path time, shape ().
    dt
        Step size in path time, negative to go backward.
    method
        As in `integrate`.

    Returns
    -------
    State at time `t + dt`, shape (cells, dimensions).
    """
    return _STEPS[method](field, z, t, dt)


def round_trip_error(
    field: Velocity,
    z: Tensor,
    *,
    t_start: float = 1.0,
    t_end: float = 0.0,
    method: Method,
    n_steps: int,
) -> float:
    """Integrate from `t_start` to `t_end` and back, and measure how far from home the cells arrive.

    sqrt(mean |z_back - z|^2 / mean |z_away - z|^2), the means over cells: the error relative to the distance from start
    to turning point, zero if all cells come home exactly. The defaults invert observed cells (t = 1) to the source.

    Parameters
    ----------
    field
        Velocity field.
    z
        State at `t_start`, shape (cells, dimensions), at least one cell.
    t_start
        Path time of `z`.
    t_end
        Path time of the turning point.
    method
        As in `integrate`.
    n_steps
        Number of equal steps each way.

    Raises
    ------
    NonFiniteError, DataError
        As `integrate`; DataError also if there is no cell.
    """
    if z.shape[0] == 0:
        raise DataError("z holds no cells; a round trip needs at least one")
    with torch.no_grad():
        away = integrate(field, z, t_start=t_start, t_end=t_end, method=method, n_steps=n_steps).z
        back = integrate(field, away, t_start=t_end, t_end=t_start, method=method, n_steps=n_steps).z
        error, distance = (back - z).square().sum(), (away - z).square().sum()
        return float((error / distance).sqrt()) if error > 0 else 0.0


def _euler(field: Velocity, z: Tensor, t: Tensor, dt: float | Tensor) -> Tensor:
    return z + dt * field(z, t)


def _midpoint(field: Velocity, z: Tensor, t: Tensor, dt: float | Tensor) -> Tensor:
    middle = z + dt / 2 * field(z, t)
    return z + dt * field(middle, t + dt / 2)


def _heun(field: Velocity, z: Tensor, t: Tensor, dt: float | Tensor) -> Tensor:
    v_0 = field(z, t)
    v_1 = field(z + dt * v_0, t + dt)
    return z + dt / 2 * (v_0 + v_1)


def _rk4(field: Velocity, z: Tensor, t: Tensor, dt: float | Tensor) -> Tensor:
    v_1 = field(z, t)
    v_2 = field(z + dt / 2 * v_1, t + dt / 2)
    v_3 = field(z + dt / 2 * v_2, t + dt / 2)
    v_4 = field(z + dt * v_3, t + dt)
    return z + dt / 6 * (v_1 + 2 * v_2 + 2 * v_3 + v_4)


_STEPS: dict[str, Callable[[Velocity, Tensor, Tensor, float | Tensor], Tensor]] = {
    "euler": _euler,
    "midpoint": _midpoint,
    "heun": _heun,
    "rk4": _rk4,
}


def _require_finite(values: Tensor, name: str, where: str) -> None:
    """Raise if any of the values (cells, dimensions) is NaN or infinite."""
    # NaN and infinity survive a sum, which is much cheaper than a look at each value; a sum can also overflow by itself
    if torch.isfinite(values.detach().sum()):
        return
    bad = torch.nonzero(~torch.isfinite(values).all(dim=1)).flatten()
    if len(bad):
        raise NonFiniteError(
            f"the ODE {name} is not finite {where}: {len(bad)} of {len(values)} cells, first row {int(bad[0])}; "
            "check the weights and the inputs of the velocity field, or take more steps"
        )
