"""What a prediction leaves behind for the next changes how long that takes, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi._bounded import BoundedDict
from cfmvc_scvi.model import plan
from cfmvc_scvi.model.torch_networks import TorchNetworks


@pytest.mark.parametrize("output", ["counts", "normalized"])
def test_an_answer_does_not_depend_on_the_questions_before(own, tmp_path, output, monkeypatch):
    question = {"perturbation": "A", "seed": 0, "output": output}
    others = {"seed": 1}, {"heterogeneity": 0.0}, {"strength": 0.5}, {"guidance_scale": 2.0}, {"output": "latent"}
    for before in (*others, {}):
        answer = own.predict_counterfactual(**{**question, **before})
    own.save(tmp_path / "fresh")
    fresh = CFMVC.load(tmp_path / "fresh", adata=own.adata.copy(), accelerator="cpu").predict_counterfactual(**question)
    assert abs(answer.X - fresh.X).max() == 0
    np.testing.assert_array_equal(*(x.obsm["X_cfmvc_counterfactual"] for x in (answer, fresh)))

    matched = []
    monkeypatch.setattr(plan, "match_rates", lambda *args: matched.append(args))  # would fail if it were called
    again = own.predict_counterfactual(**question)
    assert not matched and abs(again.X - answer.X).max() == 0


def test_latents_alone_are_in_single_precision_those_of_counts_in_double(own, monkeypatch):
    seen = []
    posterior = TorchNetworks.posterior
    monkeypatch.setattr(
        TorchNetworks,
        "posterior",
        lambda self, *args: seen.append(self.module.latent_location.dtype) or posterior(self, *args),
    )
    answers = [own.predict_counterfactual(perturbation="A", seed=0, output=output) for output in ("latent", "rate")]
    assert seen[0] == torch.float32 and set(seen[-2:]) == {torch.float64}
    for key in ("X_cfmvc", "X_cfmvc_counterfactual"):
        np.testing.assert_allclose(*(answer.obsm[key] for answer in answers), rtol=1e-4, atol=1e-5)


def test_nothing_is_kept_when_a_weight_changes(own):
    before = own.predict_counterfactual(perturbation="A", output="latent").obsm["X_cfmvc_counterfactual"]
    with torch.no_grad():
        own.module.flow.base_out.bias += 1.0
    after = own.predict_counterfactual(perturbation="A", output="latent").obsm["X_cfmvc_counterfactual"]
    assert not np.allclose(before, after)


def test_a_posterior_is_that_of_the_module(trained):
    networks, module = TorchNetworks(trained.module), trained.module
    tensors = next(iter(trained._make_data_loader(trained.adata, batch_size=64)))
    inputs = {key: value.numpy() for key, value in tensors.items()}
    counts = trained.adata.X[:64].tocsr()
    with torch.inference_mode():
        expected = module.inference(**module._get_inference_input(tensors))["qz"]
    for found, value in zip(networks.posterior(counts, inputs), (expected.loc, expected.scale), strict=True):
        np.testing.assert_allclose(found, value.numpy(), rtol=1e-4, atol=1e-5)


def test_the_share_of_zeros_is_decoded_for_the_likelihood_that_has_one(trained, tiny_adata, make_model):
    hidden = torch.randn(3, 16)
    assert trained.module.decoder.px_dropout_decoder(hidden) is hidden
    inflated = make_model(tiny_adata.copy(), gene_likelihood="zinb").module.decoder.px_dropout_decoder
    assert inflated(hidden).shape == (3, tiny_adata.n_vars)
    layers = trained.module.decoder.px_dropout_decoder, inflated
    assert layers[0].weight.shape == layers[1].weight.shape  # files hold the same weights


def test_a_bounded_dictionary_of_sizes_drops_the_oldest_but_keeps_the_last():
    cache: BoundedDict[str, str] = BoundedDict(5, len)
    cache["a"], cache["b"], cache["c"] = "xx", "xx", "xx"
    assert list(cache) == ["b", "c"] and cache.total == 4
    cache["b"] = "x"
    assert list(cache) == ["c", "b"] and cache.total == 3
    cache["d"] = "x" * 9
    assert list(cache) == ["d"] and cache.total == 9
