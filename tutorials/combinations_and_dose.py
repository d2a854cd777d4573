# %% [markdown]
# # Combinations and doses
#
# Two drugs at several doses, measured one by one; what do they do together, and in between? It was made for screens
# such as that of Norman et al. 2019 (`cfmvc_scvi.datasets.norman()`, pairs) and sci-Plex (doses), and runs here on
# simulated cells, offline, of which the truth is known at any dose.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scvi

import cfmvc_scvi
from cfmvc_scvi import CFMVC, metrics, pl

scvi.settings.seed = 0
adata = cfmvc_scvi.datasets.simulated_perturbation(
    3000, 300, n_cell_types=3, n_samples=1, perturbations=("A", "B"), combinations=True, doses=(0.3, 1.0, 3.0)
)
pd.crosstab(adata.obs["perturbation"], adata.obs["dose"])

# %% [markdown]
# ## Train without the middle dose of A and without any A+B in one cell type
#
# `A+B` was seen in two types and is asked for in the third; `A` at dose 1 was seen nowhere.

# %%
middle = (adata.obs["perturbation"] == "A") & (adata.obs["dose"] == 1.0)
pair = (adata.obs["perturbation"] == "A+B") & (adata.obs["cell_type"] == "type_0")
training = adata[~(middle | pair)].copy()
CFMVC.setup_anndata(
    training, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation", dose_key="dose"
)
model = CFMVC(training)
model.train(accelerator="cpu", enable_progress_bar=False)

# %% [markdown]
# ## A dose between those seen
#
# The effect of A at any dose, on the genes that it changes most, with the interval of 90 %; the dots are cells that
# were measured, the open one those that were held out.

# %%
control = adata[(adata.obs["cell_type"] == "type_0") & (adata.obs["perturbation"] == "control")].copy()
start = metrics.log_normalize(control.X).mean(axis=0)
doses = np.geomspace(0.2, 4.0, 9)
curves = pd.concat({dose: model.get_effect("A", dose=float(dose)) for dose in doses}, names=["dose"]).reset_index(
    "dose"
)
curves = curves[curves["context"] == "type_0"]
genes = curves[curves["dose"] == curves["dose"].max()]["gene"].head(3).tolist()
figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.9), layout="constrained", sharey=True)
for ax, gene in zip(axes, genes, strict=True):
    curve = curves[curves["gene"] == gene]
    ax.plot(curve["dose"], curve["delta"], color="#D55E00", label="predicted")
    ax.fill_between(curve["dose"], curve["low"], curve["high"], color="#D55E00", alpha=0.2, linewidth=0)
    for dose in (0.3, 1.0, 3.0):
        chosen = (adata.obs["perturbation"] == "A") & (adata.obs["dose"] == dose) & (adata.obs["cell_type"] == "type_0")
        seen = metrics.log_normalize(adata[chosen].X).mean(axis=0) - start
        face = "white" if dose == 1.0 else "#0072B2"
        ax.scatter(dose, seen[adata.var_names.get_loc(gene)], s=36, facecolor=face, edgecolor="#0072B2", zorder=3)
    ax.set(xscale="log", title=gene, xlabel="dose")
    ax.set_xticks([0.3, 1.0, 3.0], ["0.3", "1", "3"])
    ax.minorticks_off()
axes[0].set_ylabel("effect (Δ mean log1p CP10k)")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# Beyond the doses seen, the prediction says so:

# %%
beyond = model.predict_counterfactual(control, perturbation="A", dose=10.0, seed=0)
print("groups beyond the doses seen:", beyond.uns["cfmvc"]["n_conditions_extrapolated"])

# %% [markdown]
# ## A combination in a new cell type

# %%
truth = adata[pair & (adata.obs["dose"] == 3.0)].copy()
both = model.predict_counterfactual(control, perturbation="A+B", dose=3.0, seed=0)
single = {name: model.predict_counterfactual(control, perturbation=name, dose=3.0, seed=0) for name in ("A", "B")}
effect = {
    name: metrics.log_normalize(part.X).mean(axis=0) - start
    for name, part in {"A+B": both, "true": truth, **single}.items()
}
figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.2), layout="constrained")
pl.delta(effect["A+B"], effect["true"], list(adata.var_names), title="A+B, which other types had", ax=axes[0])
pl.delta(effect["A"] + effect["B"], effect["true"], list(adata.var_names), title="sum of A and B", ax=axes[1])
plt.show()

# %% [markdown]
# Compare the corners. The left one is the sum of the parts in this cell type and what A+B did beyond the sum in the
# others; the right one is the sum of what these very cells did under A and under B. Where parts add up, as in this
# simulation, the two should be close; where they do not, only the left one can know. Look at both.
# Had A+B been measured in no type at all, the model itself takes the sum, and `get_trust` says that the effect is
# `composed`:

# %%
none = adata[adata.obs["perturbation"] != "A+B"].copy()
CFMVC.setup_anndata(none, labels_key="cell_type", perturbation_key="perturbation", dose_key="dose")
without = CFMVC(none)
without.train(max_epochs={"representation": 5, "flow": 1}, accelerator="cpu", enable_progress_bar=False)
pd.concat({name: m.get_trust("A+B", dose=3.0) for name, m in {"seen elsewhere": model, "never seen": without}.items()})[
    ["context", "trust", "observed", "composed"]
].round(2)
