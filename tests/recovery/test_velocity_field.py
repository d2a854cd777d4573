"""A planted flow is found again: one perturbation turns and shifts every cell, the other pushes responders only."""

import math

import pytest
import torch
from torch import Tensor

from cfmvc_scvi.flow import integrate, round_trip_error, straight_path
from cfmvc_scvi.nn import VelocityField

CONTEXTS = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])


def planted(z: Tensor, perturbation: Tensor) -> Tensor:
    """Counterfactual of each cell: 0 stays, 1 turns by 50 degrees and shifts, 2 pushes only the cells with z_0 > 0."""
    angle = math.radians(50)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned = z @ turn.T + torch.tensor([0.5, -1.0])
    pushed = z + torch.sigmoid(4 * z[:, :1]) * torch.tensor([0.3, 2.0])
    return torch.where((perturbation == 1)[:, None], turned, torch.where((perturbation == 2)[:, None], pushed, z))


def sample(n_cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Control state, counterfactual, design and context features of random cells."""
    context = CONTEXTS[torch.randint(2, (n_cells,))]
    perturbation = torch.randint(3, (n_cells,))
    z = 0.8 * context + torch.randn(n_cells, 2)
    return z, planted(z, perturbation), torch.eye(3)[perturbation, 1:], context


@pytest.fixture(scope="module")
def field() -> VelocityField:
    torch.manual_seed(0)
    field = VelocityField(2, 2, 2, n_hidden=64)
    optimizer = torch.optim.AdamW(field.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        z_0, z_1, design, context = sample(256)
        path = straight_path(z_0, z_1, torch.rand(256))
        loss = (field(path.z_t, path.t, design, context) - path.target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return field.eval()


@torch.no_grad()
def test_every_cell_arrives_at_its_own_counterfactual(field: VelocityField) -> None:
    z_0, z_1, design, context = sample(3000)
    z = integrate(field.at(design, context), z_0, method="midpoint", n_steps=5).z
    for perturbation in range(2):
        cells = design[:, perturbation] == 1
        effect, error = z_1[cells] - z_0[cells], z[cells] - z_1[cells]
        heterogeneity = effect - effect.mean(dim=0)
        # a shift by the mean effect would score 1
        assert error.square().mean() < 0.03 * heterogeneity.square().mean()


@torch.no_grad()
def test_control_cells_stay(field: VelocityField) -> None:
    z_0, _, design, context = sample(1000)
    z = integrate(field.at(torch.zeros_like(design), context), z_0, method="midpoint", n_steps=5).z
    assert (z - z_0).square().mean().sqrt() < 0.05


@torch.no_grad()
def test_five_steps_are_enough_and_can_be_undone(field: VelocityField) -> None:
    z_0, z_1, design, context = sample(1000)
    velocity = field.at(design, context)
    few, many = (integrate(velocity, z_0, method="midpoint", n_steps=n).z for n in (5, 100))
    assert (few - many).norm() < 0.01 * (many - z_0).norm()
    assert round_trip_error(velocity, z_1, method="midpoint", n_steps=5) < 0.01
