"""CellDISECT 0.1.6 (https://github.com/Lotfollahi-lab/CellDISECT): counts, zero-inflated negative binomial.

Settings: those of the package's examples/training_example.py, but at most 150 epochs: on a fold of 1,400 cells its
early stopping ended training at epoch 591, after 1,412 CPU seconds. Covariates: those of the task and the perturbation.
As in the package's `predict_counterfactuals`, the prediction is the average over its experts of the mean at the cells'
own depth; counts are drawn around it with the dispersion and the zero inflation that the model has learnt. That method
itself would register the query cells anew, with their own codes of categories.
"""

from __future__ import annotations

import tempfile

import _adapter
import _old_scvi
import numpy as np
import pandas as pd
import scvi
import torch
from scvi import REGISTRY_KEYS

_old_scvi.repair_celldisect()
from celldisect import CellDISECT  # noqa: E402  after the repair

MODEL = {
    "n_layers": 2,
    "n_hidden": 128,
    "n_latent_shared": 32,
    "n_latent_attribute": 32,
    "dropout_rate": 0.1,
    "weighted_classifier": False,
}
TRAINING = {
    "batch_size": 256,
    "recon_weight": 20,
    "cf_weight": 0.8,
    "beta": 0.003,
    "clf_weight": 0.05,
    "adv_clf_weight": 0.014,
    "adv_period": 5,
    "n_cf": 1,
    "early_stopping_patience": 6,
    "early_stopping": True,
    "save_best": True,
    "kappa_optimizer2": False,
    "n_epochs_pretrain_ae": 0,
}
PLAN = {
    "lr": 0.003,
    "weight_decay": 0.00005,
    "ensemble_method_cf": True,
    "lr_patience": 5,
    "lr_factor": 0.5,
    "lr_scheduler_metric": "loss_validation",
    "n_epochs_kl_warmup": 10,
}
EPOCHS = 150


def _draw(model: CellDISECT, task: _adapter.Task) -> object:
    """Counts of the query cells under the condition."""
    source = task.train[task.query.obs_names].copy()
    target = source.copy()
    categories = task.train.obs["perturbation"].cat.categories
    target.obs["perturbation"] = pd.Categorical([task.condition] * target.n_obs, categories=categories)
    tables = []
    for cells in (source, target):
        loader = model._make_data_loader(adata=model._validate_anndata(cells), batch_size=cells.n_obs)
        tables.append(next(iter(loader)))
    of_source, of_target = tables
    with torch.no_grad():
        _, experts = model.module.sub_forward_cf_avg(
            x=of_source[REGISTRY_KEYS.X_KEY],
            cat_covs=of_source[REGISTRY_KEYS.CAT_COVS_KEY],
            cat_covs_cf=of_target[REGISTRY_KEYS.CAT_COVS_KEY],
        )
    experts = [expert for expert in experts if expert is not None]  # that of the perturbation has no answer
    mean = torch.stack([expert.mu for expert in experts]).mean(dim=0).numpy()
    zeros = torch.stack([torch.sigmoid(expert.zi_logits) for expert in experts]).mean(dim=0).numpy()
    theta = np.exp(model.module.px_r.detach().numpy())
    return _adapter.sample_counts(mean, theta, task.rng(), zeros)


def predict(task: _adapter.Task) -> tuple[object, str]:
    """Train on all cells and draw counts of the query cells under the condition."""
    scvi.settings.seed = task.seed
    task.train.layers["counts"] = task.train.X.copy()
    CellDISECT.setup_anndata(
        task.train,
        layer="counts",
        categorical_covariate_keys=[*task.covariates, "perturbation"],
        continuous_covariate_keys=[],
    )
    model = CellDISECT(task.train, **MODEL)
    with tempfile.TemporaryDirectory() as logs:
        model.train(
            max_epochs=EPOCHS,
            use_gpu=False,
            **TRAINING,
            plan_kwargs=PLAN,
            enable_progress_bar=False,
            default_root_dir=logs,
        )
    model.module.eval()
    return _draw(model, task), "counts"


if __name__ == "__main__":
    _adapter.run("CellDISECT", predict)
