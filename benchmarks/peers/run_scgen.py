"""scGen 2.1.0 (https://github.com/theislab/scgen): log1p CP10k, Gaussian decoder, the decoder's means.

Settings: the package's defaults (800 x 2 hidden units, 100 latent dimensions) and the training of its tutorial on this
very stimulation (docs/tutorials/scgen_perturbation_prediction.ipynb): at most 100 epochs of batches of 32, early
stopping after 25. Prediction: its own `predict`, latent arithmetic balanced over the populations that the covariates
make.
"""

from __future__ import annotations

import tempfile

import _adapter
import _old_scvi
import numpy as np
import scvi

_old_scvi.repair_scgen()
import scgen  # noqa: E402  after the repair

EPOCHS = 100


def predict(task: _adapter.Task) -> tuple[object, str]:
    """Train on all cells and move the query cells along the condition's mean latent shift."""
    scvi.settings.seed = task.seed
    for cells in (task.train, task.query):
        cells.X = _adapter.log_normalize(cells.X).toarray()
        cells.obs["population"] = cells.obs[task.covariates].astype(str).agg("|".join, axis=1).astype("category")
    scgen.SCGEN.setup_anndata(task.train, batch_key="perturbation", labels_key="population")
    model = scgen.SCGEN(task.train)
    with tempfile.TemporaryDirectory() as logs:
        model.train(
            max_epochs=task.budget or EPOCHS,
            batch_size=32,
            early_stopping=True,
            early_stopping_patience=25,
            use_gpu=False,
            enable_progress_bar=False,
            default_root_dir=logs,
        )
    cells = task.train[task.query.obs_names].copy()
    predicted, _ = model.predict(ctrl_key=task.control, stim_key=task.condition, adata_to_predict=cells)
    return np.maximum(np.asarray(predicted.X), 0.0), "log1p_cp10k"


if __name__ == "__main__":
    _adapter.run("scGen", predict, budget="epochs")
