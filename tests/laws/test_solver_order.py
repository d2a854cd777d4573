"""The solver converges at the order of its method, forward, backward and there and back."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cfmvc_scvi.flow import integrate, round_trip_error

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
STEPS = (16, 32, 64)
every_method = pytest.mark.parametrize(("method", "order"), ORDERS.items())

SPIRAL = torch.tensor([[-0.5, 2.0], [-2.0, -0.5]], dtype=torch.float64)


def spiral(z: Tensor, t: Tensor) -> Tensor:
    return z @ SPIRAL.T


def spiral_end(z: Tensor, t_start: float, t_end: float) -> Tensor:
    return z @ torch.linalg.matrix_exp((t_end - t_start) * SPIRAL).T


def riccati(z: Tensor, t: Tensor) -> Tensor:
    """Nonlinear and time-dependent: dz/dt = -2 t z^2, so 1 / z grows like t^2."""
    return -2 * t * z.square()


def riccati_end(z: Tensor, t_start: float, t_end: float) -> Tensor:
    return z / (1 + (t_end**2 - t_start**2) * z)


PROBLEMS = pytest.mark.parametrize(("field", "solution"), [(spiral, spiral_end), (riccati, riccati_end)])


def start() -> Tensor:
    return torch.linspace(0.1, 0.6, 10, dtype=torch.float64).reshape(5, 2)


def measured_order(errors: list[float]) -> float:
    return -float(np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


@every_method
@PROBLEMS
@pytest.mark.parametrize(("t_start", "t_end"), [(0.0, 1.0), (1.0, 0.0)])
def test_error_against_the_closed_form(method, order, field, solution, t_start, t_end) -> None:
    errors = []
    for n_steps in STEPS:
        z = integrate(field, start(), t_start=t_start, t_end=t_end, method=method, n_steps=n_steps).z
        errors.append((z - solution(start(), t_start, t_end)).norm().item())
    assert measured_order(errors) == pytest.approx(order, abs=0.25)


@every_method
@PROBLEMS
def test_inverse_then_forward_comes_home(method, order, field, solution) -> None:
    errors = [round_trip_error(field, start(), method=method, n_steps=n_steps) for n_steps in STEPS]
    assert measured_order(errors) > order - 0.25
    assert errors[-1] < {1: 0.2, 2: 1e-3, 4: 1e-7}[order]


@every_method
def test_straight_paths_are_exact_in_one_step(method, order) -> None:
    generator = torch.Generator().manual_seed(0)
    z_0, z_1 = torch.randn(2, 20, 3, dtype=torch.float64, generator=generator)
    forward = integrate(lambda z, t: z_1 - z_0, z_0, method=method, n_steps=1).z
    backward = integrate(lambda z, t: z_1 - z_0, z_1, t_start=1.0, t_end=0.0, method=method, n_steps=1).z
    torch.testing.assert_close(forward, z_1, rtol=0, atol=1e-14)
    torch.testing.assert_close(backward, z_0, rtol=0, atol=1e-14)


@every_method
def test_cells_do_not_see_each_other(method, order) -> None:
    permutation = torch.tensor([3, 1, 4, 0, 2])
    z = integrate(riccati, start(), method=method, n_steps=4).z
    shuffled = integrate(riccati, start()[permutation], method=method, n_steps=4).z
    assert torch.equal(z[permutation], shuffled)


def test_halves_of_the_interval_compose() -> None:
    whole = integrate(riccati, start(), method="rk4", n_steps=8).z
    half = integrate(riccati, start(), t_end=0.5, method="rk4", n_steps=4).z
    halves = integrate(riccati, half, t_start=0.5, method="rk4", n_steps=4).z
    torch.testing.assert_close(whole, halves, rtol=0, atol=1e-15)
    assert math.isfinite(whole.sum())
