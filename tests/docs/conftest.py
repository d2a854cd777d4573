import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import cfmvc_scvi
from cfmvc_scvi import CFMVC

_TRAIN, _BRIEFLY = CFMVC.train, {"representation": 2, "flow": 1}


def _train_briefly(self: CFMVC, max_epochs: Any = None, **kwargs: Any) -> None:
    _TRAIN(self, _BRIEFLY, **{"accelerator": "cpu", "enable_progress_bar": False, **kwargs})


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = cfmvc_scvi.datasets.simulated_perturbation(900, 250, n_cell_types=3, n_samples=1)
    CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(adata)
    _train_briefly(model)
    path = tmp_path_factory.mktemp("docs") / "model"
    model.save(path, save_anndata=True)
    return path


@pytest.fixture
def namespace(_trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What examples may take for granted: data, a trained model, and control cells with their prediction."""
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    logging.disable(logging.INFO)  # scvi-tools logs to stdout, which is not what an example returns
    monkeypatch.setattr(CFMVC, "train", _train_briefly)  # examples show the defaults, which take minutes
    model = CFMVC.load(_trained)
    adata = model.adata
    control = adata[(adata.obs["cell_type"] == "type_0") & (adata.obs["perturbation"] == "control")].copy()
    treated = model.predict_counterfactual(control, perturbation="A", seed=0)
    yield {
        "cfmvc_scvi": cfmvc_scvi,
        "CFMVC": CFMVC,
        "adata": adata,
        "model": model,
        "control": control,
        "treated": treated,
        "predicted": treated,
        "real": adata[(adata.obs["cell_type"] == "type_0") & (adata.obs["perturbation"] == "A")].copy(),
    }
    logging.disable(logging.NOTSET)
    plt.close("all")
