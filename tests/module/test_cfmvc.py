"""The module: two latent blocks, shares, standardisation, precision."""

from __future__ import annotations

import pytest
import torch

from cfmvc_scvi.config import FlowConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.module import CFMVCModule

N_GENES = 12


def make(**options):
    torch.manual_seed(0)
    sizes = {"n_intrinsic": 3, "n_technical": 2, "n_perturbations": 2, "n_hidden": 8, "flow": FlowConfig(n_hidden=8)}
    return CFMVCModule(N_GENES, n_batch=2, n_labels=2, **(sizes | options)).eval()


def minibatch(n=6):
    generator = torch.Generator().manual_seed(1)
    return {
        "X": torch.poisson(torch.full((n, N_GENES), 3.0), generator=generator),
        "batch": torch.arange(n).remainder(2)[:, None],
        "labels": torch.zeros(n, 1, dtype=torch.long),
    }


def posterior(module, tensors):
    return module.inference(**module._get_inference_input(tensors))["qz"]


def test_the_blocks_of_the_posterior_read_what_they_should():
    module, tensors = make(), minibatch()
    location = posterior(module, tensors).loc
    assert location.shape == (6, 5)
    other_batch = posterior(module, {**tensors, "batch": 1 - tensors["batch"]}).loc
    assert torch.equal(other_batch[:, :3], location[:, :3])
    assert not torch.allclose(other_batch[:, 3:], location[:, 3:])
    same_depth = posterior(module, {**tensors, "X": tensors["X"].flip(1)}).loc
    assert not torch.allclose(same_depth[:, :3], location[:, :3])
    torch.testing.assert_close(same_depth[:, 3:], location[:, 3:])
    torch.testing.assert_close(module.technical_posterior_mean(tensors), location[:, 3:])


def test_the_technical_block_reads_the_depth_also_where_counts_are_not_logged():
    logged, plain = make(), make(log_variational=False)
    torch.testing.assert_close(
        posterior(logged, minibatch()).loc[:, 3:], posterior(plain, minibatch()).loc[:, 3:], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shares_sum_to_one_and_equal_scvis(dispersion, dtype):
    module, tensors = make(dispersion=dispersion), minibatch()
    z = posterior(module, tensors).loc
    scale = module.generative(z, torch.zeros(6, 1), tensors["batch"], y=tensors["labels"])["px"].scale
    shares = module.to(dtype).decode_fractions(z.to(dtype), tensors)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(6, dtype=dtype))
    torch.testing.assert_close(shares, scale.to(dtype))


def test_standardisation_is_undone_by_its_inverse():
    module = make()
    z = torch.randn(200, 3) * torch.tensor([2.0, 0.1, 1.0]) + 4
    module.fit_standardisation(z)
    u = module.standardise(z)
    torch.testing.assert_close(u.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(u.var(dim=0).mean(), torch.ones(()))
    torch.testing.assert_close(module.unstandardise(u), z)


def test_likelihood_and_posterior_stay_single_under_autocast():
    module, tensors = make(), minibatch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inference = module.inference(**module._get_inference_input(tensors))
        generative = module.generative(**module._get_generative_input(tensors, inference))
        loss = module.loss(tensors, inference, generative)
    assert inference["qz"].loc.dtype == inference["z"].dtype == torch.float32
    assert generative["px"].mu.dtype == torch.float32
    assert loss.loss.dtype == torch.float32


@pytest.mark.parametrize("raw", [-40.0, -12.0, 0.0, 12.0, 40.0])
def test_the_dispersion_is_bounded_and_keeps_a_gradient(raw):
    module = make()
    with torch.no_grad():
        module.parametrizations.px_r.original.fill_(raw)
    bounded = module.px_r
    assert bounded.abs().max() < 15
    bounded.sum().backward()
    assert (module.parametrizations.px_r.original.grad.abs() > 1e-3).all()


def test_a_module_without_perturbations_has_no_flow():
    module = make(n_perturbations=0)
    assert module.flow is None
    assert not any(name.startswith("flow") for name in module.state_dict())
    with pytest.raises(DataError, match="no flow"):
        _ = module.velocity


def test_no_technical_block():
    module = make(n_technical=0)
    assert posterior(module, minibatch()).loc.shape == (6, 3)
