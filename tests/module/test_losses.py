"""The flow matching loss in closed form."""

from __future__ import annotations

import torch

from cfmvc_scvi.module import flow_matching_loss

PAIRS = {
    "z_0": torch.tensor([[0.0, 1.0], [2.0, -1.0]]),
    "z_1": torch.tensor([[1.0, 1.0], [0.0, 1.0]]),
    "design": torch.zeros(2, 1),
    "context": torch.zeros(2, 1),
}


def test_the_loss_of_the_true_velocity_is_zero_and_of_none_the_mean_square():
    time = torch.tensor([0.25, 0.5])
    shift = PAIRS["z_1"] - PAIRS["z_0"]
    assert flow_matching_loss(lambda z, t, p, c: shift, PAIRS, time) == 0
    assert flow_matching_loss(lambda z, t, p, c: torch.zeros_like(z), PAIRS, time) == (1 + 0 + 4 + 4) / 4


def test_the_field_is_asked_on_the_straight_line():
    seen = []

    def field(z, t, design, context):
        seen.append((z, t))
        return torch.zeros_like(z)

    flow_matching_loss(field, PAIRS, torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(seen[0][0], torch.tensor([[0.25, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(seen[0][1], torch.tensor([0.25, 0.5]))
