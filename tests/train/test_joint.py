"""Pairs within a minibatch of counts, with the gradient of their latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cfmvc_scvi.train import MinibatchCoupler


def coupler(source="control", offsets=None):
    return MinibatchCoupler(
        context_of=np.array([[0], [1]]),
        context_features=np.array([[0.0, 1.0], [2.0, 3.0]], dtype=np.float32),
        designs=np.array([[0.0], [1.0]], dtype=np.float32),
        offsets=np.zeros((2, 2, 2), dtype=np.float32) if offsets is None else offsets,
        axes=np.eye(2, dtype=np.float32),
        source=source,
        rng=np.random.default_rng(0),
    )


def minibatch(design, label):
    n = len(design)
    return {
        "perturbation": torch.tensor(design, dtype=torch.float32)[:, None],
        "labels": torch.tensor(label)[:, None],
        "sample": torch.zeros(n, 1),
    }


def test_cells_are_coupled_within_their_context_by_transport():
    mean = torch.tensor([[0.0, 0], [5, 5], [9, 9], [0.5, 0], [5.5, 5], [9.5, 9]])
    batch = minibatch([0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 1])
    u = (mean + 0.01).requires_grad_()
    pairs = coupler()(batch, u, mean)
    torch.testing.assert_close(pairs["z_1"] - pairs["z_0"], torch.tensor([[0.5, 0.0]] * 3))
    torch.testing.assert_close(pairs["context"][:, 0].sort().values, torch.tensor([0.0, 0.0, 2.0]))
    assert (pairs["design"] == 1).all()
    (pairs["z_1"] - 2 * pairs["z_0"]).sum().backward()
    assert (u.grad != 0).all()


def test_the_frame_moves_the_sources_and_the_coupling():
    offsets = np.zeros((2, 2, 2), dtype=np.float32)
    offsets[1, 0] = [5, 0]
    mean = torch.tensor([[0.0, 0], [5, 0], [5, 0], [10, 0]])
    pairs = coupler(offsets=offsets)(minibatch([0, 0, 1, 1], [0, 0, 0, 0]), mean, mean)
    torch.testing.assert_close(pairs["z_0"], pairs["z_1"])


@pytest.mark.parametrize("design", [[0, 0], [1, 1]])
def test_a_minibatch_without_pairs(design):
    assert coupler()(minibatch(design, [0, 0]), torch.zeros(2, 2), torch.zeros(2, 2)) is None


def test_noise_is_the_source_of_every_cell_whose_centre_is_known():
    offsets = np.ones((2, 2, 2), dtype=np.float32)
    offsets[1, 1] = np.nan
    u = torch.arange(6.0).reshape(3, 2)
    pairs = coupler("noise", offsets)(minibatch([0, 1, 1], [0, 0, 1]), u, u)
    torch.testing.assert_close(pairs["z_1"], u[:2] - 1)
    assert pairs["z_0"].shape == (2, 2)
