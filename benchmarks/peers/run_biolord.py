"""biolord 0.0.3 (https://github.com/nitzanlab/biolord): log1p CP10k, normal likelihood, the decoder's means.

Settings: those of the package's tutorial (docs/tutorials/biolord_pipeline.ipynb) but for batches of 128 cells instead
of 512 below 5,000 training cells, so that small data get as many steps. A cell's unknown attributes are an embedding of
its own, so query cells must be training cells, which they are; the perturbation is then exchanged. Known attributes:
the covariates and the perturbation.
"""

from __future__ import annotations

import tempfile

import _adapter
import biolord
import numpy as np
import torch

MODULE = {
    "decoder_width": 1024,
    "decoder_depth": 4,
    "attribute_nn_width": 512,
    "attribute_nn_depth": 2,
    "n_latent_attribute_categorical": 4,
    "gene_likelihood": "normal",
    "reconstruction_penalty": 1e2,
    "unknown_attribute_penalty": 1e1,
    "unknown_attribute_noise_param": 1e-1,
    "attribute_dropout_rate": 0.1,
    "use_batch_norm": False,
    "use_layer_norm": False,
}
PLAN = {
    "n_epochs_warmup": 0,
    "latent_lr": 1e-4,
    "latent_wd": 1e-4,
    "decoder_lr": 1e-4,
    "decoder_wd": 1e-4,
    "attribute_nn_lr": 1e-2,
    "attribute_nn_wd": 4e-8,
    "step_size_lr": 45,
    "cosine_scheduler": True,
    "scheduler_final_lr": 1e-5,
}
EPOCHS = 500


def predict(task: _adapter.Task) -> tuple[object, str]:
    """Train on all cells and decode the query cells with the perturbation exchanged."""
    train = task.train
    train.X = _adapter.log_normalize(train.X).toarray()
    biolord.Biolord.setup_anndata(train, categorical_attributes_keys=[*task.covariates, "perturbation"])
    model = biolord.Biolord(train, n_latent=32, model_name="biolord", module_params={**MODULE, "seed": task.seed})
    with tempfile.TemporaryDirectory() as logs:
        model.train(
            max_epochs=EPOCHS,
            batch_size=512 if train.n_obs >= 5000 else 128,
            accelerator="cpu",
            device=1,
            plan_kwargs=PLAN,
            early_stopping=True,
            early_stopping_patience=20,
            check_val_every_n_epoch=10,
            num_workers=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=logs,
        )
    model.module.eval()
    cells = model.get_dataset(train[task.query.obs_names].copy())
    code = model.categorical_attributes_map["perturbation"][task.condition]
    cells["perturbation"] = torch.full_like(cells["perturbation"], code)
    with torch.no_grad():
        means, _ = model.module.get_expression(cells)
    return np.maximum(means.numpy(), 0.0), "log1p_cp10k"


if __name__ == "__main__":
    _adapter.run("biolord", predict)
