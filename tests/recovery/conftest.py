"""Models trained on simulated cells whose counterfactuals are known."""

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import true_counterfactual

_KEYS = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}


@pytest.fixture(scope="session")
def fitted() -> Callable[..., CFMVC]:
    """Train a model on the cells of `adata`; `setup` and `training` change the defaults."""

    def fit(adata: ad.AnnData, setup: dict[str, Any] | None = None, training: dict[str, Any] | None = None, **options):
        torch.manual_seed(0)
        cells = adata.copy()
        CFMVC.setup_anndata(cells, **(_KEYS | (setup or {})))
        model = CFMVC(cells, **options)
        model.train(accelerator="cpu", enable_progress_bar=False, **(training or {}))
        return model

    return fit


@pytest.fixture(scope="session")
def true_effect() -> Callable[..., np.ndarray]:
    """Change of each cell's log1p CP10k under a condition, from the simulator."""

    def effect(cells: ad.AnnData, perturbation: str, dose: float | None = None) -> np.ndarray:
        after, before = (true_counterfactual(cells, name, dose) for name in (perturbation, "control"))
        return np.log1p(after) - np.log1p(before)

    return effect


@pytest.fixture(scope="session")
def predicted_effect() -> Callable[..., np.ndarray]:
    """Change of each cell's log1p CP10k under a condition, from a model."""

    def effect(model: CFMVC, cells: ad.AnnData, **asked: Any) -> np.ndarray:
        after = model.predict_counterfactual(cells, **asked, output="normalized", seed=0).X
        before = model.predict_counterfactual(cells, perturbation="control", output="normalized", seed=0).X
        return np.log1p(after) - np.log1p(before)

    return effect
