"""Models that cannot be exported say why."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError, NotTrainedError, UnsupportedError
from cfmvc_scvi.export.onnx import as_bundle

KEYS = {"labels_key": "cell_type", "perturbation_key": "perturbation"}


def test_a_model_in_space_is_refused(tiny_adata: ad.AnnData, fit: Callable[..., CFMVC]) -> None:
    tiny_adata.obsm["spatial"] = np.random.default_rng(0).random((tiny_adata.n_obs, 2))
    model = fit({**KEYS, "spatial_key": "spatial"}, tiny_adata)
    with pytest.raises(UnsupportedError, match="spatial_key"):
        as_bundle(model)


def test_untrained_models_and_those_without_perturbations_are_refused(tiny_adata: ad.AnnData) -> None:
    CFMVC.setup_anndata(tiny_adata, **KEYS)
    with pytest.raises(NotTrainedError, match="representation"):
        as_bundle(CFMVC(tiny_adata))
    CFMVC.setup_anndata(tiny_adata, labels_key="cell_type")
    with pytest.raises(DataError, match="no perturbations"):
        as_bundle(CFMVC(tiny_adata))
