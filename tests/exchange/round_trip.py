"""Save a model, or load one and ask it: python round_trip.py save|load FOLDER ANSWER.npz, by any Python."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData, read_h5ad

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation

COLUMNS = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation", "dose_key": "dose"}


def trained() -> CFMVC:
    """Train briefly, with texts as categories, as objects and, where pandas has them, as its own strings."""
    scvi.settings.seed = 0
    adata = simulated_perturbation(300, 40, n_cell_types=2, n_samples=1, perturbations=("A",), combinations=False)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    adata.obs["batch"] = pd.Series(adata.obs["batch"].astype(str), dtype="string")
    CFMVC.setup_anndata(adata, **COLUMNS)
    model = CFMVC(adata, n_intrinsic=4, n_technical=2, n_hidden=16, flow_kwargs={"n_hidden": 16})
    epochs = {"representation": 3, "flow": 1}
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def answer(model: CFMVC) -> AnnData:
    """Ask what the control cells would look like."""
    cells = np.flatnonzero(model.adata.obs["perturbation"].astype(str) == "control")
    return model.predict_counterfactual(indices=cells, perturbation="A", seed=0, trust=True)


def write(folder: Path, path: Path, model: CFMVC, predicted: AnnData) -> None:
    """Write what the other side is compared with."""
    read = read_h5ad(folder / "predicted.h5ad")
    effect = model.get_effect("A").sort_values(["context", "gene"])
    np.savez(
        path,
        counts=predicted.X.toarray(),
        read=read.X.toarray(),
        names=np.array([str(name) for name in read.obs_names]),
        contexts=np.array([str(name) for name in read.obs["target_context"]]),
        own_contexts=np.array([str(name) for name in predicted.obs["target_context"]]),
        delta=effect["delta"].to_numpy(),
        genes=np.array([str(name) for name in model.adata.var_names]),
        versions=np.array([version("anndata"), version("pandas")]),
    )


def main(action: str, folder: Path, path: Path) -> None:
    if action == "save":
        model = trained()
        model.save(folder / "model", save_anndata=True)
        predicted = answer(model)
        predicted.write_h5ad(folder / "predicted.h5ad")
    else:
        model = CFMVC.load(folder / "model", accelerator="cpu")
        predicted = answer(model)
    write(folder, path, model, predicted)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
