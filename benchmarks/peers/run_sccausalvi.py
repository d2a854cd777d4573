"""scCausalVI 0.0.12 (https://github.com/ShaokunAn/scCausalVI): counts, zero-inflated negative binomial.

Settings: the package's tutorial on this very stimulation (docs/source/tutorial/scCausalVI-ifnb.ipynb): 10 + 10 latent
dimensions, 2 x 128 hidden units, MMD weight 10, norm weight 0.2, 200 epochs, batches of 128. Prediction: the package's
own `get_count_expression_cross_condition`, which samples counts at the observed library size. The context is not an
input: it is to be found in the background latent.
"""

from __future__ import annotations

import tempfile

import _adapter
import numpy as np
import scCausalVI.data.dataloaders.data_splitting as splitting
import scvi
import torch
from scCausalVI import scCausalVIModel

EPOCHS = 200


def predict(task: _adapter.Task) -> tuple[object, str]:
    """Train on all cells and sample counts of the query cells under the condition."""
    scvi.settings.seed = task.seed
    # scvi-tools' device parser asks for jax although none is used.
    splitting.parse_device_args = lambda *_, **__: ("cpu", torch.device("cpu"))
    train = task.train
    scCausalVIModel.setup_anndata(train, batch_key="batch", condition_key="perturbation")
    names = list(train.obs["perturbation"].cat.categories)
    codes = {name: code for code, name in enumerate(names)}
    model = scCausalVIModel(train, condition2int=codes, control=task.control, mmd_weight=10.0, norm_weight=0.2)
    groups = [np.flatnonzero(train.obs["perturbation"] == name) for name in names]
    with tempfile.TemporaryDirectory() as logs:
        model.train(groups, max_epochs=EPOCHS, use_gpu=False, enable_progress_bar=False, default_root_dir=logs)
    model.module.eval()
    query = train[task.query.obs_names].copy()  # the method's own `indices` would end in an error
    cells = model.get_count_expression_cross_condition(task.control, task.condition, adata=query)
    return cells.X, "counts"


if __name__ == "__main__":
    _adapter.run("scCausalVI", predict)
