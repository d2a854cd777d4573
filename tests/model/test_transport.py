"""Transport between conditions, on velocity fields with known flows."""

import numpy as np
import pytest

from cfmvc_scvi.model.networks import Solved
from cfmvc_scvi.model.transport import ConditionArrays, abduct, advance, transport


def drift(
    state: np.ndarray, design: np.ndarray, context: np.ndarray, *, backwards: bool, guidance_scale: float
) -> Solved:
    """dz/dt = context + guidance * sum of the design: a shift that is known."""
    velocity = context + guidance_scale * design.sum(axis=1, keepdims=True)
    return Solved(state - velocity if backwards else state + velocity, 1)


def conditions(design: list[float], offset: float) -> ConditionArrays:
    n = len(design)
    return ConditionArrays(np.array(design, dtype=float)[:, None], np.full((n, 2), 0.25), np.full((n, 2), offset))


@pytest.fixture
def u() -> np.ndarray:
    return np.arange(8.0).reshape(4, 2)


def test_from_control_cells_control_does_not_flow(u: np.ndarray) -> None:
    own, wanted = conditions([0, 0, 2, 2], 0.0), conditions([0, 3, 0, 2], 0.0)
    moved, solutions = transport(drift, u, own, wanted, source="control")
    # control stays; control -> 3: +.25+3; 2 -> control: -.25-2; 2 -> 2 returns
    expected = u + np.array([0.0, 3.25, -2.25, 0.0])[:, None]
    np.testing.assert_allclose(moved, expected)
    assert np.array_equal(moved[0], u[0]) and len(solutions) == 2


def test_from_noise_everything_flows(u: np.ndarray) -> None:
    own, wanted = conditions([0, 0, 2, 2], 0.0), conditions([0, 3, 0, 2], 0.0)
    moved, _ = transport(drift, u, own, wanted, source="noise")
    np.testing.assert_allclose(moved, u + np.array([0.0, 3.0, -2.0, 0.0])[:, None])


@pytest.mark.parametrize("source", ["control", "noise"])
def test_offsets_are_a_shift_before_or_a_centre_after(u: np.ndarray, source: str) -> None:
    own, wanted = conditions([1.0] * 4, 0.5), conditions([1.0] * 4, 2.0)
    moved, _ = transport(drift, u, own, wanted, source=source)
    np.testing.assert_allclose(moved, u + 1.5)
    origin, _ = abduct(drift, u, own, source=source)
    np.testing.assert_allclose(origin, u - 1.75)
    back, _ = advance(drift, origin, own, source=source)
    np.testing.assert_allclose(back, u)


def test_guidance_works_on_the_way_forward_only(u: np.ndarray) -> None:
    own, wanted = conditions([1.0] * 4, 0.0), conditions([2.0] * 4, 0.0)
    moved, _ = transport(drift, u, own, wanted, source="control", guidance_scale=3.0)
    np.testing.assert_allclose(moved, u - 1 + 6)


def test_nothing_to_integrate_between_controls(u: np.ndarray) -> None:
    control = conditions([0.0] * 4, 0.0)
    moved, solutions = transport(drift, u, control, control, source="control")
    assert np.array_equal(moved, u) and solutions == []
