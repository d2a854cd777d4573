"""Models that earlier versions saved: 120 cells x 20 genes of the shared counts, by `save_fixture.py`."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cfmvc_scvi import CFMVC

SAVED = sorted(Path(__file__).parent.glob("saved_by_*"))


@pytest.mark.parametrize("saved", SAVED, ids=lambda path: path.name)
@pytest.mark.parametrize("with_data", [True, False])
def test_models_of_earlier_versions_load_and_predict(tiny_adata, saved, with_data):
    adata = tiny_adata[::3, :20].copy()
    model = CFMVC.load(saved, adata=adata.copy() if with_data else False, accelerator="cpu")
    cells = adata[adata.obs["perturbation"] == "control"].copy()
    result = model.predict_counterfactual(cells, perturbation="A", seed=0)
    before, after = (np.asarray(x.sum(axis=0)).ravel() for x in (cells.X, result.X))
    assert (after / before)[:10].mean() > 1.3 * (after / before)[10:].mean()
    effect = model.get_effect("A").groupby("gene")["delta"].mean()
    assert effect[[f"gene{i}" for i in range(10)]].mean() > effect[[f"gene{i}" for i in range(10, 20)]].mean() + 0.3


@pytest.mark.parametrize("saved", SAVED, ids=lambda path: path.name)
def test_weights_mean_what_they_meant(tiny_adata, saved):
    """Intrinsic latents from the tensors of the file alone: log1p, linear layer, batch norm, ReLU, linear layer."""
    adata = tiny_adata[::3, :20].copy()
    found = CFMVC.load(saved, adata=adata, accelerator="cpu").get_latent_representation()
    tensors = {name: value.astype(float) for name, value in load_file(saved / "weights.safetensors").items()}
    first, norm = (f"z_encoder.encoder.fc_layers.Layer 0.{i}" for i in range(2))
    mean = "z_encoder.mean_encoder"
    hidden = np.log1p(adata.X.toarray()) @ tensors[f"{first}.weight"].T + tensors[f"{first}.bias"]
    hidden = (hidden - tensors[f"{norm}.running_mean"]) / np.sqrt(tensors[f"{norm}.running_var"] + 1e-3)
    hidden = np.maximum(hidden * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"], 0)
    expected = hidden @ tensors[f"{mean}.weight"].T + tensors[f"{mean}.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.std() > 1e-2
