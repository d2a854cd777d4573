"""Models that earlier versions saved."""

from pathlib import Path

import numpy as np
import pytest

from cfmvc_scvi import CFMVC

SAVED = Path(__file__).parent / "saved_by_0_1_0"  # 120 cells x 20 genes of the shared counts, saved by version 0.1.0


@pytest.mark.parametrize("with_data", [True, False])
def test_models_of_0_1_0_load_and_predict(tiny_adata, with_data):
    adata = tiny_adata[::3, :20].copy()
    model = CFMVC.load(SAVED, adata=adata.copy() if with_data else False, accelerator="cpu")
    cells = adata[adata.obs["perturbation"] == "control"].copy()
    result = model.predict_counterfactual(cells, perturbation="A", seed=0)
    before, after = (np.asarray(x.sum(axis=0)).ravel() for x in (cells.X, result.X))
    assert (after / before)[:10].mean() > 1.3 * (after / before)[10:].mean()
    effect = model.get_effect("A").groupby("gene")["delta"].mean()
    assert effect[[f"gene{i}" for i in range(10)]].mean() > effect[[f"gene{i}" for i in range(10, 20)]].mean() + 0.3
