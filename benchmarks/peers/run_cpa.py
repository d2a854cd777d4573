"""CPA 0.8.8 (https://github.com/theislab/cpa): counts, negative binomial.

Settings: those of the package's tutorial on this very stimulation (docs/tutorials/Kang.ipynb), with batches of 128
cells instead of 512 below 5,000 training cells; early stopping ends it. As in the tutorial, counterfactual cells are in
the data as split 'ood', which is not trained on: counts of the control cells with the label of the condition. CPA gives
the mean of its negative binomial at the cells' own depth; counts are drawn with the dispersion it has learnt.
"""

from __future__ import annotations

import tempfile

import _adapter
import _old_scvi  # noqa: F401  before cpa
import anndata as ad
import cpa
import numpy as np
import scvi

MODEL = {
    "n_latent": 64,
    "recon_loss": "nb",
    "doser_type": "linear",
    "n_hidden_encoder": 128,
    "n_layers_encoder": 2,
    "n_hidden_decoder": 512,
    "n_layers_decoder": 2,
    "use_batch_norm_encoder": True,
    "use_layer_norm_encoder": False,
    "use_batch_norm_decoder": False,
    "use_layer_norm_decoder": True,
    "dropout_rate_encoder": 0.0,
    "dropout_rate_decoder": 0.1,
    "variational": False,
}
PLAN = {
    "n_epochs_kl_warmup": None,
    "n_epochs_pretrain_ae": 30,
    "n_epochs_adv_warmup": 50,
    "n_epochs_mixup_warmup": 0,
    "mixup_alpha": 0.0,
    "adv_steps": None,
    "n_hidden_adv": 64,
    "n_layers_adv": 3,
    "use_batch_norm_adv": True,
    "use_layer_norm_adv": False,
    "dropout_rate_adv": 0.3,
    "reg_adv": 20.0,
    "pen_adv": 5.0,
    "lr": 3e-4,
    "wd": 4e-7,
    "adv_lr": 3e-4,
    "adv_wd": 4e-7,
    "adv_loss": "cce",
    "doser_lr": 3e-4,
    "doser_wd": 4e-7,
    "do_clip_grad": True,
    "gradient_clip_value": 1.0,
    "step_size_lr": 10,
}
EPOCHS = 2000  # the tutorial's; early stopping is what ends it


def _with_counterfactuals(task: _adapter.Task) -> ad.AnnData:
    """Training cells, 15 % of them for validation, and the query cells with the label of the condition."""
    asked = task.query.copy()
    asked.obs["perturbation"] = task.condition
    cells = ad.concat({"seen": task.train, "ood": asked}, label="split", index_unique="-")
    validation = (cells.obs["split"] == "seen") & (task.rng().random(cells.n_obs) < 0.15)
    cells.obs["split"] = np.where(cells.obs["split"] == "ood", "ood", np.where(validation, "valid", "train"))
    cells.obs["dose"] = ["+".join("1.0" for _ in name.split("+")) for name in cells.obs["perturbation"].astype(str)]
    for column in ("perturbation", *task.covariates):
        cells.obs[column] = cells.obs[column].astype(str).astype("category")
    return cells


def _batch_size(cells: ad.AnnData) -> int:
    """Some 128 or 512, and no last batch of a single cell, with which batch normalisation fails."""
    n_train, least = int((cells.obs["split"] == "train").sum()), 512 if cells.n_obs >= 5000 else 128
    return next(size for size in range(least, 2 * least) if n_train % size != 1)


def predict(task: _adapter.Task) -> tuple[object, str]:
    """Train on all cells and draw counts of the query cells under the condition."""
    scvi.settings.seed = task.seed
    cells = _with_counterfactuals(task)
    cpa.CPA.setup_anndata(
        cells,
        perturbation_key="perturbation",
        control_group=task.control,
        dosage_key="dose",
        categorical_covariate_keys=task.covariates,
        is_count_data=True,
        max_comb_len=max(name.count("+") + 1 for name in cells.obs["perturbation"].cat.categories),
    )
    splits = {"split_key": "split", "train_split": "train", "valid_split": "valid", "test_split": "ood"}
    model = cpa.CPA(cells, **splits, **MODEL, seed=task.seed)
    with tempfile.TemporaryDirectory() as logs:
        model.train(
            max_epochs=EPOCHS,
            use_gpu=False,
            batch_size=_batch_size(cells),
            plan_kwargs=PLAN,
            early_stopping_patience=5,
            check_val_every_n_epoch=5,
            save_path=False,
            enable_progress_bar=False,
            default_root_dir=logs,
        )
    model.predict(cells, batch_size=512)
    mean = np.asarray(cells.obsm["CPA_pred"])[(cells.obs["split"] == "ood").to_numpy()]
    theta = np.exp(model.module.px_r.detach().numpy())
    return _adapter.sample_counts(mean, theta, task.rng()), "counts"


if __name__ == "__main__":
    _adapter.run("CPA", predict)
