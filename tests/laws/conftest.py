"""A model with doses, a combination and batches, whose flow has large random weights: laws hold for any weights."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pytest
import torch
from scipy import sparse

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation


def scramble(model: CFMVC, seed: int) -> None:
    """Replace the weights of the flow by random ones that move cells visibly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.module.flow.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))


@pytest.fixture(scope="session")
def law_data() -> ad.AnnData:
    """420 cells x 150 genes, of which the last is never seen; doses 0.5 and 2, A+B at both."""
    adata = simulated_perturbation(
        420, 150, n_cell_types=2, n_samples=1, combinations=("A+B",), doses=(0.5, 2.0), seed=3
    )
    seen = sparse.diags([1.0] * 149 + [0.0], dtype=adata.X.dtype)
    adata.X = sparse.csr_matrix(adata.X @ seen)  # whose indices are not sorted, as often happens
    adata.X.eliminate_zeros()
    return adata


@pytest.fixture(scope="session", params=["control", "noise"])
def law_model(request: pytest.FixtureRequest, law_data: ad.AnnData) -> CFMVC:
    torch.manual_seed(0)
    adata = law_data.copy()
    keys = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation", "dose_key": "dose"}
    CFMVC.setup_anndata(adata, **keys)
    small = {"n_intrinsic": 6, "n_hidden": 32, "flow_kwargs": {"n_hidden": 16}}
    model = CFMVC(adata, source=request.param, **small)
    pairs = {"batch_size": 64, "steps_per_epoch": 4}
    model.train({"representation": 20, "flow": 1}, accelerator="cpu", enable_progress_bar=False, pair_kwargs=pairs)
    scramble(model, 0)
    return model


@pytest.fixture
def scrambled(law_model: CFMVC, tmp_path: Path) -> Callable[[int], CFMVC]:
    """Make a copy of the model with another flow."""

    def copy(seed: int) -> CFMVC:
        law_model.save(tmp_path / "model", overwrite=True)
        model = CFMVC.load(tmp_path / "model", adata=law_model.adata.copy(), accelerator="cpu")
        scramble(model, seed)
        return model

    return copy
