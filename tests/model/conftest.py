"""Small models, quick to train, for the tests of the model room."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import anndata as ad
import pytest
import scvi

from cfmvc_scvi import CFMVC

_KEYS = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    """Options of a training that takes a fraction of a second."""
    return {
        "max_epochs": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "pair_kwargs": {"batch_size": 64, "steps_per_epoch": 4},
    }


@pytest.fixture(scope="session")
def make_model() -> Callable[..., CFMVC]:
    """Set up data and return a small untrained model; None as a key leaves the key out."""

    def make(adata: ad.AnnData, setup: dict[str, Any] | None = None, **options: Any) -> CFMVC:
        keys = {key: value for key, value in (_KEYS | (setup or {})).items() if value is not None}
        CFMVC.setup_anndata(adata, **keys)
        small = {"n_intrinsic": 4, "n_technical": 2, "n_hidden": 16, "flow_kwargs": {"n_hidden": 16}}
        return CFMVC(adata, **(small | options))

    return make


@pytest.fixture(scope="session")
def _trained(
    _counts_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> tuple[CFMVC, ad.AnnData]:
    adata = _counts_adata.copy()
    model = make_model(adata)
    model.train(**quick)
    return model, adata


@pytest.fixture
def trained(_trained: tuple[CFMVC, ad.AnnData]) -> CFMVC:
    """A trained model; for reading only."""
    return _trained[0]


@pytest.fixture
def own(_trained: tuple[CFMVC, ad.AnnData], tmp_path: Any) -> CFMVC:
    """A trained model with data of its own, to change."""
    _trained[0].save(tmp_path / "own")
    return CFMVC.load(tmp_path / "own", adata=_trained[1].copy(), accelerator="cpu")


@pytest.fixture
def seeded() -> Iterator[None]:
    """Run with `scvi.settings.seed` 0, and unset it afterwards."""
    scvi.settings.seed = 0
    yield
    scvi.settings.seed = None


@pytest.fixture
def weights() -> Callable[[CFMVC], dict[str, Any]]:
    """Copy all parameters and buffers of a model."""
    return lambda model: copy.deepcopy(model.module.state_dict())
