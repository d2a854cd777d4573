"""A perturbation's coefficients and effect are exactly zero for control: no tolerance, whatever surrounds it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cfmvc_scvi.nn import PerturbationEncoder, VelocityField

N_CONTEXT = 5
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

law = settings(max_examples=60, deadline=None)
surroundings = {
    "seed": st.integers(0, 10_000),
    "n_cells": st.integers(1, 70),
    "n_perturbations": st.sampled_from([1, 2, 37]),
    "weight_scale": st.sampled_from([1e-3, 1.0, 30.0]),
    "context_scale": st.sampled_from([0.0, 1.0, 100.0]),
    "dose_scale": st.sampled_from([1e-4, 1.0, 1e3]),
    "autocast": st.booleans(),
}


def _inflate(network: torch.nn.Module, scale: float, generator: torch.Generator) -> None:
    """Replace every weight and bias, also those that start at zero, by a random one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def _design(n_cells: int, n_perturbations: int, dose_scale: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Doses of random combinations; about half of the cells, and always one, are control."""
    design = dose_scale * torch.rand(n_cells, n_perturbations, generator=generator)
    control = torch.rand(n_cells, generator=generator) < 0.5
    control[torch.randint(n_cells, (1,), generator=generator)] = True
    design[control] = 0.0
    return design, control


@pytest.mark.parametrize("dtype", DTYPES)
@law
@given(**surroundings)
def test_alpha_of_control_is_zero(
    dtype, seed, n_cells, n_perturbations, weight_scale, context_scale, dose_scale, autocast
) -> None:
    generator = torch.Generator().manual_seed(seed)
    encoder = PerturbationEncoder(n_perturbations, N_CONTEXT, 7)
    if dtype == torch.float16:  # its range ends at 65504, and autocast to bfloat16 does not take it
        weight_scale, dose_scale, autocast = min(weight_scale, 1.0), min(dose_scale, 1.0), False
    _inflate(encoder, weight_scale, generator)
    design, control = _design(n_cells, n_perturbations, dose_scale, generator)
    context = context_scale * torch.randn(n_cells, N_CONTEXT, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        alpha = encoder.to(dtype)(design.to(dtype), context.to(dtype))
    assert torch.isfinite(alpha).all()
    assert (alpha[control] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@law
@given(guidance_scale=st.floats(-4, 4), **surroundings)
def test_velocity_of_control_is_the_base(
    dtype, seed, n_cells, n_perturbations, weight_scale, context_scale, dose_scale, autocast, guidance_scale
) -> None:
    generator = torch.Generator().manual_seed(seed)
    field = VelocityField(3, n_perturbations, N_CONTEXT, n_hidden=16)
    _inflate(field, weight_scale, generator)
    design, control = _design(n_cells, n_perturbations, dose_scale, generator)
    context = context_scale * torch.randn(n_cells, N_CONTEXT, generator=generator)
    z_t = torch.randn(n_cells, 3, generator=generator).to(dtype)
    t = torch.rand(n_cells, generator=generator).to(dtype)
    field, design, context = field.to(dtype), design.to(dtype), context.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        components = field.components(z_t, t, design, context)
        velocity = field(z_t, t, design, context, guidance_scale=guidance_scale)
        base = field.base(z_t, t, context)
    assert torch.isfinite(velocity).all()
    assert (components.alpha[control] == 0).all()
    assert (components.effect[control] == 0).all()
    assert torch.equal(velocity[control], base[control])


def test_perturbed_cells_do_have_an_effect() -> None:
    """The law would hold for a field that ignores the design; this one does not."""
    field = VelocityField(3, 2, N_CONTEXT)
    design = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5], [1.0, 1.0]])
    effect = field.components(torch.randn(4, 3), torch.tensor(0.5), design, torch.randn(4, N_CONTEXT)).effect
    assert (effect.abs().amax(dim=1) > 0).tolist() == [False, True, True, True]


def test_training_keeps_the_law() -> None:
    field = VelocityField(3, 2, N_CONTEXT, n_hidden=16)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
    design = torch.eye(3)[torch.arange(30) % 3, 1:]
    z_t, context, t = torch.randn(30, 3), torch.randn(30, N_CONTEXT), torch.rand(30)
    for _ in range(20):
        optimizer.zero_grad()
        (field(z_t, t, design, context) - 1).square().mean().backward()
        optimizer.step()
    effect = field.components(z_t, t, design, context).effect
    assert (effect[::3] == 0).all()
    assert effect[1::3].abs().max() > 0.1
