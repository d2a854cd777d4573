"""The package at hand, as a process like its peers': defaults, or a shorter training.

A budget is epochs of the flow, with eight times as many of the representation, which is about the default's ratio.
"""

from __future__ import annotations

import _adapter
import scvi

from cfmvc_scvi import CFMVC


def predict(task: _adapter.Task) -> tuple[object, str]:
    """Train on all cells and predict the counts of the query cells."""
    scvi.settings.seed = task.seed
    keys = {"perturbation_key": "perturbation", "control_category": task.control, "batch_key": "batch"}
    CFMVC.setup_anndata(task.train, labels_key=task.covariates[-1], **keys)
    model = CFMVC(task.train)
    epochs = None if task.budget is None else {"representation": 8 * task.budget, "flow": task.budget}
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    cells = task.train[task.query.obs_names].copy()
    return model.predict_counterfactual(cells, perturbation=task.condition, seed=task.seed).X, "counts"


if __name__ == "__main__":
    _adapter.run("CFMVC", predict, budget="epochs")
