from pathlib import Path

import anndata as ad
import pytest

from cfmvc_scvi import CFMVC


@pytest.fixture(scope="session")
def asked(_counts_adata: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that never saw A in T cells, briefly trained, and the data, as files."""
    folder = tmp_path_factory.mktemp("app")
    adata = _counts_adata.copy()
    adata.write_h5ad(folder / "cells.h5ad")
    training = adata[~((adata.obs["cell_type"] == "T") & (adata.obs["perturbation"] == "A"))].copy()
    CFMVC.setup_anndata(training, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(training)
    epochs = {"representation": 2, "flow": 1}
    model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False)
    model.save(folder / "model")
    return folder / "model", folder / "cells.h5ad"
