"""The dependence of a latent and a label: unbiased, within groups, with a gradient that removes what was planted."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from cfmvc_scvi.module import hsic_loss


def tensors(*arrays) -> list[torch.Tensor]:
    return [torch.as_tensor(np.asarray(array)) for array in arrays]


def by_quadruples(z: np.ndarray, label: np.ndarray) -> float:
    """HSIC as it is defined: the mean over ordered quadruples of different cells (Gretton et al. 2005, lemma 1)."""
    squared = ((z[:, None] - z) ** 2).sum(-1)
    off = ~np.eye(len(z), dtype=bool)
    k, el = np.exp(-squared / max(squared[off].mean(), 2.0)), (label[:, None] == label).astype(float)
    terms = [k[i, j] * (el[i, j] + el[q, r] - 2 * el[i, q]) for i, j, q, r in permutations(range(len(z)), 4)]
    return float(np.mean(terms))


def test_it_is_the_mean_over_quadruples(rng: np.random.Generator) -> None:
    z, label = 2 * rng.normal(size=(9, 3)), rng.integers(0, 3, 9)
    found, n_cells = hsic_loss(*tensors(z, label, np.zeros(9, dtype=int)))
    assert n_cells == 9 and found.item() == pytest.approx(by_quadruples(z, label), abs=1e-12)


def test_independent_labels_have_none_on_average_and_others_do(rng: np.random.Generator) -> None:
    values, planted = [], []
    for _ in range(500):
        z, label, group = rng.normal(size=(24, 2)), rng.integers(0, 2, 24), np.repeat([0, 1, 2], 8)
        values.append(hsic_loss(*tensors(z + 3 * group[:, None], label, group))[0].item())
        planted.append(hsic_loss(*tensors(z + 2 * label[:, None], label, group))[0].item())
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error and np.mean(planted) > 20 * error


def test_groups_count_by_their_size_and_small_ones_not_at_all(rng: np.random.Generator) -> None:
    z, label = 0.1 * rng.normal(size=(20, 2)), rng.integers(0, 2, 20)  # narrow: the kernel has the width of the prior
    group = np.repeat([5, 2, 9], [11, 6, 3])
    first, second = (hsic_loss(*tensors(z[group == g], label[group == g], group[group == g]))[0] for g in (5, 2))
    found, n_cells = hsic_loss(*tensors(z, label, group))
    assert n_cells == 17 and found.item() == pytest.approx((11 * first + 6 * second).item() / 17, abs=1e-12)
    latent = torch.zeros(3, 2, requires_grad=True)
    nothing, n_cells = hsic_loss(latent, *tensors([0, 1, 0], [0, 0, 1]))
    nothing.backward()
    assert n_cells == 0 and nothing.item() == 0 and not latent.grad.any()


def test_its_gradient(rng: np.random.Generator) -> None:
    label, group = tensors(rng.integers(0, 2, 12), np.repeat([0, 1], 6))
    latent = torch.as_tensor(0.3 * rng.normal(size=(12, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: hsic_loss(z, label, group)[0], latent)


def test_descending_it_removes_a_planted_shift_and_keeps_that_between_groups(rng: np.random.Generator) -> None:
    shift, apart = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True), np.array([4.0, 4.0])
    optimizer = torch.optim.Adam([shift], lr=0.05)
    for _ in range(200):
        label, group = rng.integers(0, 2, 128), rng.integers(0, 2, 128)
        noise, code, of = tensors(rng.normal(size=(128, 2)) + group[:, None] * apart, label, group)
        loss = hsic_loss(noise + code[:, None] * shift, code, of)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert shift.detach().abs().max() < 0.25
