"""Transport between conditions, on velocity fields with known flows."""

import pytest
import torch
from torch import Tensor, nn

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.module.transport import ConditionTensors, abduct, advance, transport


class Drift(nn.Module):
    """dz/dt = context + guidance * sum of the design: a shift that is known."""

    def at(self, design: Tensor, context: Tensor, guidance_scale: float = 1.0):
        return lambda z, t: context + guidance_scale * design.sum(dim=1, keepdim=True)


def conditions(design: list[float], offset: float) -> ConditionTensors:
    n = len(design)
    column = torch.tensor(design, dtype=torch.float64)[:, None]
    return ConditionTensors(column, torch.full((n, 2), 0.25).double(), torch.full((n, 2), offset).double())


@pytest.fixture
def u() -> Tensor:
    return torch.arange(8, dtype=torch.float64).reshape(4, 2)


def test_from_control_cells_control_does_not_flow(u: Tensor) -> None:
    own, wanted = conditions([0, 0, 2, 2], 0.0), conditions([0, 3, 0, 2], 0.0)
    moved, solutions = transport(Drift(), u, own, wanted, source="control", solver=SolverConfig())
    # control stays; control -> 3: +.25+3; 2 -> control: -.25-2; 2 -> 2 returns
    expected = u + torch.tensor([0.0, 3.25, -2.25, 0.0])[:, None]
    torch.testing.assert_close(moved, expected)
    assert torch.equal(moved[0], u[0]) and [each.status for each in solutions] == ["success", "success"]


def test_from_noise_everything_flows(u: Tensor) -> None:
    own, wanted = conditions([0, 0, 2, 2], 0.0), conditions([0, 3, 0, 2], 0.0)
    moved, _ = transport(Drift(), u, own, wanted, source="noise", solver=SolverConfig())
    torch.testing.assert_close(moved, u + torch.tensor([0.0, 3.0, -2.0, 0.0])[:, None])


@pytest.mark.parametrize("source", ["control", "noise"])
def test_offsets_are_a_shift_before_or_a_centre_after(u: Tensor, source: str) -> None:
    own, wanted = conditions([1.0] * 4, 0.5), conditions([1.0] * 4, 2.0)
    moved, _ = transport(Drift(), u, own, wanted, source=source, solver=SolverConfig())
    torch.testing.assert_close(moved, u + 1.5)
    origin, _ = abduct(Drift(), u, own, source=source, solver=SolverConfig())
    torch.testing.assert_close(origin, u - 1.75)
    back, _ = advance(Drift(), origin, own, source=source, solver=SolverConfig())
    torch.testing.assert_close(back, u)


def test_guidance_works_on_the_way_forward_only(u: Tensor) -> None:
    own, wanted = conditions([1.0] * 4, 0.0), conditions([2.0] * 4, 0.0)
    moved, _ = transport(Drift(), u, own, wanted, source="control", solver=SolverConfig(), guidance_scale=3.0)
    torch.testing.assert_close(moved, u - 1 + 6)


def test_nothing_to_integrate_between_controls(u: Tensor) -> None:
    control = conditions([0.0] * 4, 0.0)
    moved, solutions = transport(Drift(), u, control, control, source="control", solver=SolverConfig())
    assert torch.equal(moved, u) and solutions == []
