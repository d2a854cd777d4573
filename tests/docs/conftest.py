import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import cfmvc_scvi
from cfmvc_scvi import CFMVC

_TRAIN, _BRIEFLY = CFMVC.train, {"representation": 2, "flow": 1}
_COLUMNS = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
_MORE_COLUMNS = {"dose_key": "dose", "spatial_key": "spatial"}


def _train_briefly(self: CFMVC, max_epochs: Any = None, **kwargs: Any) -> None:
    _TRAIN(self, _BRIEFLY, **{"accelerator": "cpu", "enable_progress_bar": False, **kwargs})


def _saved(folder: Path, keys: dict[str, str], **simulation: Any) -> Path:
    adata = cfmvc_scvi.datasets.simulated_perturbation(900, 250, n_cell_types=3, n_samples=1, **simulation)
    CFMVC.setup_anndata(adata, **keys)
    model = CFMVC(adata)
    _train_briefly(model)
    model.save(folder / "model", save_anndata=True)
    return folder / "model"


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("docs"), _COLUMNS)


@pytest.fixture(scope="session")
def _of_tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs_tissue")
    return _saved(folder, _COLUMNS | _MORE_COLUMNS, spatial=True, doses=(0.3, 1.0, 3.0), combinations=False)


@pytest.fixture
def tissue(_of_tissue: Path) -> dict[str, Any]:
    """Data with places and doses, and their model."""
    model = CFMVC.load(_of_tissue)
    return {"model": model, "adata": model.adata}


@pytest.fixture
def namespace(_trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What examples may take for granted: data, a trained model, and control cells with their prediction."""
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    logging.disable(logging.INFO)  # scvi-tools logs to stdout, which is not what an example returns
    monkeypatch.setattr(CFMVC, "train", _train_briefly)  # examples show the defaults, which take minutes
    model = CFMVC.load(_trained)
    adata = model.adata
    control = adata[(adata.obs["cell_type"] == "type_0") & (adata.obs["perturbation"] == "control")].copy()
    treated = model.predict_counterfactual(control, perturbation="A", seed=0)
    yield {
        "cfmvc_scvi": cfmvc_scvi,
        "CFMVC": CFMVC,
        "np": np,
        "adata": adata,
        "model": model,
        "control": control,
        "treated": treated,
        "predicted": treated,
        "real": adata[(adata.obs["cell_type"] == "type_0") & (adata.obs["perturbation"] == "A")].copy(),
    }
    logging.disable(logging.NOTSET)
    plt.close("all")
