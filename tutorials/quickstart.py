# %% [markdown]
# # Quickstart: what would these cells look like under another perturbation?
#
# Simulated cells, so that the answer is known: 4 cell types, 2 batches, 3 donors, perturbations A and B. All B cells
# of one cell type are held out; the model predicts them from the control cells of that type. Runs in a minute on a
# laptop, offline.

# %%
import numpy as np
import scanpy as sc
import scvi

import cfmvc_scvi
from cfmvc_scvi import CFMVC
from cfmvc_scvi.metrics import cell_effect_correlation

scvi.settings.seed = 0
adata = cfmvc_scvi.datasets.simulated_perturbation(perturbations=("A", "B"), combinations=False)
held_out = (adata.obs["cell_type"] == adata.obs["cell_type"].iloc[0]) & (adata.obs["perturbation"] == "B")
training = adata[~held_out].copy()

# %% [markdown]
# ## Train
#
# Register the columns, fit the representation (an scVI with two latents) and then the flow.

# %%
CFMVC.setup_anndata(training, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
model = CFMVC(training)
model.train(accelerator="cpu", enable_progress_bar=False)
training.obsm["X_cfmvc"] = model.get_latent_representation()

# %% [markdown]
# ## Ask
#
# The control cells of the held-out type, had they been given B: integer counts, coupled to each cell's own.

# %%
cell_type = adata.obs["cell_type"].iloc[0]
control = adata[(adata.obs["cell_type"] == cell_type) & (adata.obs["perturbation"] == "control")].copy()
predicted = model.predict_counterfactual(control, perturbation="B", seed=0)
print(predicted)

# %% [markdown]
# ## Judge
#
# The predicted effect on each gene against the one of the cells that were held out, and the effect on each single cell
# against its planted truth (which only a simulation knows).


# %%
def mean_log(cells):
    """Mean log1p CP10k of each gene."""
    cells = cells.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return np.asarray(cells.X.mean(axis=0)).ravel()


before, truth, guess = (mean_log(cells) for cells in (control, adata[held_out], predicted))
print(f"Pearson correlation of the effect: {np.corrcoef(guess - before, truth - before)[0, 1]:.2f}")

expected, own = (
    np.log1p(model.predict_counterfactual(control, perturbation=perturbation, output="normalized", seed=0).X)
    for perturbation in ("B", "control")
)
planted, start = (
    np.log1p(cfmvc_scvi.datasets.true_counterfactual(control, perturbation=perturbation))
    for perturbation in ("B", "control")
)
per_cell = cell_effect_correlation(expected - own, planted - start)
print(f"Correlation of the effect on single cells, around its mean: {per_cell:.2f}")

# %% [markdown]
# ## Keep

# %%
model.save("quickstart_model", overwrite=True)
again = CFMVC.load("quickstart_model", adata=training)
same = again.predict_counterfactual(control, perturbation="B", seed=0)
assert (same.X != predicted.X).nnz == 0
