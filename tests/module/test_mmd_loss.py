"""The matching term: unbiased, blind to pairs of one cell, with a gradient that moves the flow where it should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import rbf_mmd2
from cfmvc_scvi.module import mmd_loss
from cfmvc_scvi.train import FlowPlan

WIDTHS = torch.tensor([0.7, 1.5], dtype=torch.float64)


class Shift(torch.nn.Module):
    """A field of constant velocity: the flow adds it."""

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self.by = torch.nn.Parameter(torch.zeros(n_dims, dtype=torch.float64))

    def forward(self, z, t, design, context):
        return self.by.expand_as(z)


def still(z, t, design, context):
    return torch.zeros_like(z)


def pairs_of(z_0, observed, group=None, **cells) -> dict[str, torch.Tensor]:
    n = len(z_0)
    usual = {"source_cell": np.arange(n), "observed_cell": np.arange(n)} | cells
    arrays = {"z_0": z_0, "observed": observed, "design": np.zeros((n, 1)), "context": np.zeros((n, 1))}
    arrays |= {"group": np.zeros(n, dtype=int) if group is None else group, **usual}
    return {name: torch.as_tensor(value) for name, value in arrays.items()}


def test_of_one_group_it_is_the_metric(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(40, 3)), rng.normal(0.5, 1.5, size=(40, 3))
    assert mmd_loss(still, pairs_of(x, y), WIDTHS).item() == pytest.approx(rbf_mmd2(x, y, WIDTHS.numpy()), abs=1e-12)


def test_groups_count_by_their_size_and_some_not_at_all(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(40, 3)), rng.normal(1.0, 1.0, size=(40, 3))
    group = np.repeat([3, 7, -1, 9], [10, 20, 9, 1])  # 9 has one cell, which says nothing
    first, second = (rbf_mmd2(x[group == g], y[group == g], WIDTHS.numpy()) for g in (3, 7))
    assert mmd_loss(still, pairs_of(x, y, group), WIDTHS).item() == pytest.approx((first + 2 * second) / 3, abs=1e-12)
    nothing = mmd_loss(Shift(3), pairs_of(x, y, np.full(40, -1)), WIDTHS)
    assert nothing.item() == 0


def test_it_is_unbiased_also_where_cells_are_drawn_again(rng: np.random.Generator) -> None:
    values = []
    for _ in range(2000):
        cell = rng.integers(0, 6, (2, 12))  # of six cells on each side, each about twice
        x, y = rng.normal(size=(2, 6, 2))
        cells = {"source_cell": cell[0], "observed_cell": cell[1]}
        values.append(mmd_loss(still, pairs_of(x[cell[0]], y[cell[1]], **cells), WIDTHS).item())
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert np.std(values) < 1


def test_descending_it_finds_the_planted_shift(rng: np.random.Generator) -> None:
    truth, field = np.array([1.5, -0.8]), Shift(2)
    optimizer = torch.optim.Adam(field.parameters(), lr=0.05)
    for _ in range(300):
        x, y = rng.normal(size=(128, 2)), truth + rng.normal(size=(128, 2))
        loss = mmd_loss(field, pairs_of(x, y), WIDTHS, n_steps=2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(field.by.detach().numpy(), truth, atol=0.1)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range_are_refused(weight: float) -> None:
    with pytest.raises(DataError, match="lambda_mmd is"):
        FlowPlan(object(), lambda_mmd=weight)  # type: ignore[arg-type]
