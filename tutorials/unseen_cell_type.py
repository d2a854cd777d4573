# %% [markdown]
# # An unseen cell type, and whether to believe it
#
# A drug was given to some cell types; what would it do to one that never got it? And how would one know, without
# doing the experiment? It was made for the blood cells of Kang et al. 2018 with and without interferon
# (`cfmvc_scvi.datasets.kang()`), and runs here on simulated cells, offline: five cell types, one drug.

# %%
import numpy as np
import scvi

import cfmvc_scvi
from cfmvc_scvi import CFMVC, benchmark, pl, pp, tl

scvi.settings.seed = 0
adata = cfmvc_scvi.datasets.simulated_perturbation(
    1500, 250, n_cell_types=5, n_samples=1, perturbations=("drug",), combinations=False
)
adata.obs.groupby(["cell_type", "perturbation"], observed=False).size().unstack()

# %% [markdown]
# ## Hide a cell type
#
# `pp.leave_out` hides the treated cells of one type; its control cells stay, for predictions start from them. Whatever
# is chosen with the data in view (genes, options) has to be chosen on the training cells.

# %%
held = pp.leave_out(adata, "drug", "type_0")
training, truth = adata[held.train].copy(), adata[held.test].copy()
CFMVC.setup_anndata(training, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
model = CFMVC(training)
model.train(accelerator="cpu", enable_progress_bar=False)
control = training[(training.obs["cell_type"] == "type_0") & (training.obs["perturbation"] == "control")].copy()
predicted = model.predict_counterfactual(control, perturbation="drug", seed=0)

# %% [markdown]
# ## Score it between floor and ceiling
#
# A score by itself says little. `tl.evaluate` gives each twice more: the *floor* is the control cells taken as the
# prediction, the *ceiling* one half of the real treated cells predicting the other half, which no method can
# systematically beat.

# %%
scores = tl.evaluate(predicted, truth, control)
summary = benchmark.summarise(scores)
axes = pl.benchmark(summary, model="prediction")

# %% [markdown]
# ## Compare it with what is simple
#
# The shift of the other types, that of the nearest type, resampled counts: each simple baseline is hard to beat in
# something. `tl.benchmark` hides cell types in turn, trains on the rest, and scores baselines, the model, and the model
# without its flow by the same cells. The verdict is of the model against the *best* baseline of each metric, which is
# never the same one. Three of the five types here, and one seed; for a decision, take all types and five seeds.

# %%
scores = tl.benchmark(
    adata, "cell_type", setup={"batch_key": "batch"}, only=["type_0", "type_1", "type_2"], seeds=1, progress=False
)
compared = benchmark.compare(scores)
print(benchmark.verdict(compared))
compared[["model", "best", "by", "floor", "ceiling", "outcome"]].round(3)

# %% [markdown]
# Where the outcome is a tie, the simple method will do; a model is worth its training where it wins on what you need.
# On one line per metric, 0 is the floor and 1 the ceiling:

# %%
table = benchmark.skills(benchmark.summarise(benchmark.losses(scores)))
ax = pl.skill(table, "CFMVC")

# %% [markdown]
# ## Without the truth
#
# On data of your own there is no truth for the type that was never treated. Two things remain: the benchmark above, on
# the types that were; and what the model says of itself. `get_trust` is high where contexts agree and the new one is
# like them, and is learnt by predicting each context seen from the others.

# %%
model.get_trust("drug")[["context", "trust", "word", "observed", "n_contexts"]].round(2)

# %% [markdown]
# Each gene's expected effect has an interval; those that exclude zero are what the model commits itself to. Here the
# truth tells how many of the intervals hold.

# %%
effect = model.get_effect("drug", level=0.9)
own = effect[effect["context"] == "type_0"].set_index("gene").loc[adata.var_names]
measured = np.asarray(cfmvc_scvi.metrics.log_normalize(truth.X)).mean(axis=0)
measured = measured - np.asarray(cfmvc_scvi.metrics.log_normalize(control.X)).mean(axis=0)
inside = (own["low"] <= measured) & (measured <= own["high"])
print(f"intervals of 90 % that hold the measured effect: {inside.mean():.0%}")
own.sort_values("delta", key=abs, ascending=False)[["delta", "low", "high"]].head(5).round(2)

# %% [markdown]
# Intervals keep their promise on average over contexts, not in each. Over all that was hidden in the benchmark:

# %%
ax = pl.calibration(benchmark.coverage_table(scores)[["nominal", "observed"]])

# %% [markdown]
# The same from the command line, as one page to send around:
#
# ```bash
# cfmvc-scvi benchmark DATA.h5ad --holdout cell_type --batch-key batch --report out
# ```
#
# [What "counterfactual" can and cannot mean](../limits.md) says what no score can tell.
