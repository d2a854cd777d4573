# %% [markdown]
# # Perturb-seq: knock-outs that were never made
#
# A screen knocks out some genes; which of the others would do what? A perturbation without any cell can only be
# predicted from what is known of it: a table of features. It was made for the ECCITE-seq screen of Papalexi et al.
# 2021 (`cfmvc_scvi.datasets.papalexi()`), and runs here on simulated cells, offline: four pathways, in each of which
# three knock-outs do the same, more or less strongly, in two cell lines.

# %%
import numpy as np
import pandas as pd
import scvi

import cfmvc_scvi
from cfmvc_scvi import CFMVC, metrics, pl

scvi.settings.seed = 0
doses = (0.4, 1.0, 2.5)
pathways = ("P", "Q", "R", "S")
adata = cfmvc_scvi.datasets.simulated_perturbation(
    2600, 300, n_cell_types=2, n_batches=1, n_samples=1, perturbations=pathways, doses=doses, combinations=False
)
strength = adata.obs["dose"].map({0.0: "", **{dose: str(number + 1) for number, dose in enumerate(doses)}})
knock_out = adata.obs["perturbation"].astype(str) + strength.astype(str)
adata.obs["perturbation"] = pd.Categorical(knock_out)
adata.obs["perturbation"].value_counts().sort_index().to_frame().T

# %% [markdown]
# ## What the knock-outs share, and how they differ
#
# One is held out everywhere: `Q2`. Its row of the table of features says which pathway it is in, and nothing else; a
# row of such a table may as well be an embedding of a language model, or the co-expression of the target among
# control cells, `pp.gene_embeddings`.

# %%
training = adata[adata.obs["perturbation"] != "Q2"].copy()
names = [f"{pathway}{number}" for pathway in pathways for number in (1, 2, 3)]
features = pd.get_dummies(pd.Series([name[0] for name in names], index=names), dtype=float)
training.uns["features"] = features
features.T

# %%
CFMVC.setup_anndata(
    training,
    perturbation_key="perturbation",
    labels_key="cell_type",
    perturbation_embeddings_key="features",
)
model = CFMVC(training)
model.train(accelerator="cpu", enable_progress_bar=False)

# %% [markdown]
# ## Ask for the one that was never made

# %%
effects = pd.concat({name: model.get_effect(name) for name in names}, names=["perturbation"]).reset_index(
    "perturbation"
)
ax = pl.effects(effects[effects["context"] == effects["context"].iloc[0]], 25)

# %% [markdown]
# Knock-outs of a pathway stand together: correlation of their effects.

# %%
matrix = effects.pivot_table(index="perturbation", columns="gene", values="delta")
ax = pl.similarity(matrix)

# %% [markdown]
# ## Was it right?
#
# Against the cells that were held out, in one cell line, and next to the simplest guess: the mean of all other
# knock-outs.

# %%
line = "type_0"
cells = {
    name: metrics.log_normalize(adata[(adata.obs["perturbation"] == name) & (adata.obs["cell_type"] == line)].X)
    for name in adata.obs["perturbation"].cat.categories
}
mean = {name: part.mean(axis=0) for name, part in cells.items()}
true = mean["Q2"] - mean["control"]
own = effects[(effects["perturbation"] == "Q2") & (effects["context"] == line)]
predicted = own.set_index("gene")["delta"].loc[adata.var_names].to_numpy()
others = np.mean([mean[name] - mean["control"] for name in names if name != "Q2"], axis=0)
for name, guess in {"model": predicted, "mean of the others": others}.items():
    print(f"{name}: Pearson correlation {np.corrcoef(guess, true)[0, 1]:.2f}")
ax = pl.delta(predicted, true, list(adata.var_names), title="Q2, never seen")

# %% [markdown]
# ## How far to rely on it
#
# Features count only as far as leaving perturbations out supports them. With features that say nothing, the
# prediction is what all knock-outs share, and trust is low:

# %%
model.get_trust("Q2")[["context", "trust", "word", "observed"]].round(2)

# %% [markdown]
# On real screens features say little: read [how the model uses them](../user_guide.md), and judge it on your own
# screen first, `cfmvc-scvi benchmark DATA.h5ad --holdout perturbation --report out`.
