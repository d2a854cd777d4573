import pytest
import torch
from torch import Tensor

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.flow import integrate, ode_step, round_trip_error

METHODS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
every_method = pytest.mark.parametrize("method", METHODS)


def decay(z: Tensor, t: Tensor) -> Tensor:
    return -z


@every_method
def test_reports_steps_and_evaluations(method) -> None:
    times = []

    def field(z: Tensor, t: Tensor) -> Tensor:
        assert t.shape == () and z.shape == (3, 2)
        times.append(t.item())
        return decay(z, t)

    solution = integrate(field, torch.ones(3, 2), method=method, n_steps=5)
    assert solution.status == "success"
    assert solution.n_steps == 5
    assert solution.n_evaluations == 5 * METHODS[method] == len(times)
    assert 0 <= min(times) and max(times) <= 1 + 1e-6


@every_method
def test_empty_interval_returns_the_state(method) -> None:
    z = torch.randn(4, 2)
    solution = integrate(decay, z, t_start=0.3, t_end=0.3, method=method, n_steps=5)
    assert torch.equal(solution.z, z)
    assert (solution.status, solution.n_steps, solution.n_evaluations) == ("empty_interval", 0, 0)


@every_method
def test_no_cells(method) -> None:
    assert integrate(decay, torch.empty(0, 2), method=method, n_steps=2).z.shape == (0, 2)


@every_method
def test_a_step_is_what_integrate_repeats(method) -> None:
    z = torch.randn(4, 2)
    field = lambda z, t: torch.sin(z) * t  # noqa: E731
    expected = z
    for t in (0.0, 0.5):
        expected = ode_step(field, expected, torch.tensor(t), 0.5, method=method)
    assert torch.equal(integrate(field, z, method=method, n_steps=2).z, expected)


@every_method
def test_state_stays_float32_under_autocast(method) -> None:
    layer = torch.nn.Linear(8, 8)
    seen = set()

    def field(z: Tensor, t: Tensor) -> Tensor:
        velocity = layer(z)
        seen.update({z.dtype, velocity.dtype})
        return velocity

    z = torch.randn(16, 8)
    plain = integrate(field, z, method=method, n_steps=4).z
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(z).dtype == torch.bfloat16
        island = integrate(field, z, method=method, n_steps=4).z
    assert seen == {torch.float32}
    assert torch.equal(plain, island)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_narrow_states_are_widened_and_wide_ones_kept(given: torch.dtype, kept: torch.dtype) -> None:
    assert integrate(decay, torch.ones(2, 2, dtype=given), method="heun", n_steps=3).z.dtype == kept


def test_narrow_velocities_do_not_narrow_the_state() -> None:
    solution = integrate(lambda z, t: -z.bfloat16(), torch.ones(2, 2), method="rk4", n_steps=3)
    assert solution.z.dtype == torch.float32


@every_method
def test_gradient_flows_through_the_trajectory(method) -> None:
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)

    def end(z: Tensor, weight: Tensor) -> Tensor:
        return integrate(lambda z, t: torch.tanh(z @ weight) * (1 + t), z, method=method, n_steps=3).z

    assert torch.autograd.gradcheck(end, (z, weight))


def test_round_trip_error_falls_with_the_steps_and_is_zero_at_rest() -> None:
    z = torch.randn(50, 3)
    errors = [round_trip_error(decay, z, method="midpoint", n_steps=n) for n in (2, 4, 8)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2] > 0
    assert round_trip_error(lambda z, t: torch.zeros_like(z), z, method="euler", n_steps=1) == 0.0


def test_round_trip_error_by_hand() -> None:
    # one Euler step of dz/dt = z back from z = 2: 2 -> 0, and forth: 0 -> 0
    assert round_trip_error(lambda z, t: z, torch.full((1, 1), 2.0), method="euler", n_steps=1) == pytest.approx(1.0)


@every_method
def test_non_finite_velocity_names_step_time_and_cells(method) -> None:
    def field(z: Tensor, t: Tensor) -> Tensor:
        v = torch.ones_like(z)
        if t >= 0.5:
            v[[2, 5], 1] = torch.nan
        return v

    message = r"velocity is not finite in step 3 of 4 \(.*\), t = 0.5: 2 of 7 cells, first row 2"
    if method in ("heun", "rk4"):  # they look at the end of the step before
        message = r"velocity is not finite in step 2 of 4 \(.*\), t = 0.25: 2 of 7 cells, first row 2"
    with pytest.raises(NonFiniteError, match=message):
        integrate(field, torch.zeros(7, 3), method=method, n_steps=4)


@every_method
def test_a_bounded_field_cannot_hide_an_infinite_velocity(method) -> None:
    def field(z: Tensor, t: Tensor) -> Tensor:
        return torch.where(t == 0, torch.inf, torch.tanh(z))

    with pytest.raises(NonFiniteError, match="step 1"):
        integrate(field, torch.zeros(2, 1), method=method, n_steps=4)


@every_method
def test_overflow_of_the_state_is_found(method) -> None:
    with pytest.raises(NonFiniteError, match="in step 1 of 1"):
        integrate(lambda z, t: torch.full_like(z, 3e38), torch.full((2, 1), 3e38), method=method, n_steps=1)


def test_large_finite_states_are_no_failure() -> None:
    z = torch.full((4, 2), 3e38)
    assert torch.equal(integrate(lambda z, t: torch.zeros_like(z), z, method="heun", n_steps=2).z, z)


def test_opposite_infinities_do_not_cancel() -> None:
    z = torch.tensor([[0.0, 1.0], [torch.inf, -torch.inf]])
    with pytest.raises(NonFiniteError, match="1 of 2 cells, first row 1"):
        integrate(decay, z, method="heun", n_steps=2)


def test_bad_start_is_found_before_the_field_is_called() -> None:
    z = torch.zeros(4, 2)
    z[3, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="state is not finite before the first step.*1 of 4 cells, first row 3"):
        integrate(lambda z, t: pytest.fail("called"), z, method="euler", n_steps=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dopri5"}, "'dopri5'; choose one of euler, midpoint, heun, rk4"),
        ({"n_steps": 0}, "n_steps is 0"),
        ({"z": torch.zeros(3)}, "matrix"),
        ({"z": torch.zeros(3, 2, dtype=torch.long)}, "int64"),
        ({"field": lambda z, t: z[:, :1]}, r"velocity has shape \(3, 1\), the state \(3, 2\)"),
    ],
)
def test_bad_arguments_are_refused(changes, message) -> None:
    arguments = {"field": decay, "z": torch.zeros(3, 2), "method": "heun", "n_steps": 2} | changes
    with pytest.raises(DataError, match=message):
        integrate(arguments.pop("field"), arguments.pop("z"), **arguments)


def test_round_trip_needs_a_cell() -> None:
    with pytest.raises(DataError, match="no cells"):
        round_trip_error(decay, torch.empty(0, 2), method="heun", n_steps=1)
