# %% [markdown]
# # Troubleshooting training
#
# What goes wrong, how it looks, and what to do. It was made with mistakes of real analyses in mind, and makes each of
# them here on purpose, offline, on simulated cells. [The page on troubleshooting](../troubleshooting.md) goes from
# symptom to cause.

# %%
import numpy as np
import scvi

import cfmvc_scvi
from cfmvc_scvi import CFMVC, pl, tl
from cfmvc_scvi.callbacks import GradientMonitor
from cfmvc_scvi.errors import CFMVCError

scvi.settings.seed = 0
adata = cfmvc_scvi.datasets.simulated_perturbation(
    1000, 150, n_cell_types=3, n_samples=1, perturbations=("A", "B"), combinations=False
)
columns = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
quick = {"accelerator": "cpu", "enable_progress_bar": False}


def trained(data, epochs, **how):
    CFMVC.setup_anndata(data, **columns)
    model = CFMVC(data)
    model.train(epochs, **quick, **how)
    return model


# %% [markdown]
# ## Before training: look at the data
#
# `tl.diagnose` lists what may be wrong, the most alarming first, with a remedy. Healthy data have no finding:

# %%
tl.diagnose(adata, **columns)

# %% [markdown]
# Values that are no counts, the most common mistake of all. Training would refuse them, too.

# %%
normalised = adata.copy()
normalised.X = np.log1p(normalised.X.toarray())
try:
    CFMVC.setup_anndata(normalised, **columns)
except CFMVCError as error:
    print(type(error).__name__, "-", error)

# %% [markdown]
# All treated cells in one batch, all controls in another: what the drug does and what the batch does cannot be told
# apart, by any method. Nothing raises, so ask first:

# %%
confounded = adata.copy()
confounded.obs["batch"] = np.where(confounded.obs["perturbation"] == "control", "day 1", "day 2")
tl.diagnose(confounded, **columns)[["severity", "finding", "what"]].style.hide(axis="index")

# %% [markdown]
# Few cells of a perturbation:

# %%
rare = adata[(adata.obs["perturbation"] != "B") | (np.arange(adata.n_obs) % 12 == 0)].copy()
tl.diagnose(rare, **columns)[["severity", "finding", "what", "remedy"]].style.hide(axis="index")

# %% [markdown]
# ## A training that went well
#
# `GradientMonitor` records gradients as it trains. Losses fall and level off.

# %%
healthy = trained(adata.copy(), {"representation": 60, "flow": 6}, callbacks=[GradientMonitor(every_n_steps=5)])
axes = pl.history(healthy.history)

# %%
axes = pl.gradients(healthy.history, stage="flow")

# %% [markdown]
# Layers that stay dark learn nothing. And in words:

# %%
tl.diagnose(healthy)

# %% [markdown]
# ## Cells kept aside
#
# `train_size` keeps cells for validation, `check_val_every_n_epoch` looks at them. Where validation rises while
# training falls, more epochs do harm: `early_stopping=True` ends a stage there. Of as few cells as here, the curves are
# rough.

# %%
watched = trained(adata.copy(), {"representation": 60, "flow": 6}, train_size=0.8, check_val_every_n_epoch=1)
axes = pl.history(watched.history)
tl.diagnose(watched)[["severity", "finding", "what", "remedy"]].style.hide(axis="index")

# %% [markdown]
# ## A learning rate that is too high

# %%
hasty = trained(
    adata.copy(), {"representation": 30}, stage="representation", plan_kwargs={"lr": 0.3},
    callbacks=[GradientMonitor(every_n_steps=5)],
)  # fmt: skip
axes = pl.history(hasty.history)
tl.diagnose(hasty)[["severity", "finding", "what", "remedy"]].style.hide(axis="index")

# %% [markdown]
# ## A training that is too short

# %%
short = trained(adata.copy(), {"representation": 5}, stage="representation", plan_kwargs={"lr": 3e-4})
tl.diagnose(short)[["severity", "finding", "what", "remedy"]].style.hide(axis="index")

# %% [markdown]
# ## A latent that holds nothing
#
# With too much weight on the KL term the posterior equals the prior for every cell.

# %%
weight = {"max_kl_weight": 100.0, "min_kl_weight": 100.0, "n_epochs_kl_warmup": None}
collapsed = trained(adata.copy(), {"representation": 15}, stage="representation", plan_kwargs=weight)
tl.diagnose(collapsed)[["severity", "finding", "what", "remedy"]].style.hide(axis="index")

# %% [markdown]
# ## A prediction that looks like the control cells
#
# Perhaps nothing is wrong: the model says how large an effect it expects, how sure it is, and whether it saw the
# condition. An interval that holds zero is an answer.

# %%
effect = healthy.get_effect("A", level=0.9)
sure = ((effect["low"] > 0) | (effect["high"] < 0)).groupby(effect["context"]).mean()
sure.rename("share of genes whose interval excludes 0").to_frame().round(2)

# %%
healthy.get_trust("A")[["context", "trust", "word", "observed"]].round(2)

# %% [markdown]
# ## Questions that cannot be answered
#
# are refused, and the message says what could be.

# %%
control = adata[adata.obs["perturbation"] == "control"].copy()
for question in ({"perturbation": "C"}, {"perturbation": "A+Z"}, {"perturbation": "A", "labels": "type_9"}):
    try:
        healthy.predict_counterfactual(control, **question)
    except CFMVCError as error:
        print(type(error).__name__, "-", error)
