# %% [markdown]
# # A virtual tissue: what happens around a perturbed region?
#
# Knock a gene out in a part of a tissue: its cells change, and so do their neighbours. It was made for spatial CRISPR
# screens such as Perturb-map (Dhainaut et al. 2022), for which bring your own `obsm["spatial"]`; it runs here on
# simulated slices, offline, whose neighbours follow by a known rule.

# %%
import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi
from scipy.spatial import cKDTree

from cfmvc_scvi import CFMVC, pl, tl

scvi.settings.seed = 0
rng = np.random.default_rng(0)

# %% [markdown]
# ## Four slices
#
# Three have knock-out clones, one has none. The knock-out KO raises genes 0 to 19 of its own cells; genes 20 to 49
# change in these cells and in those around, who take over nine tenths of what the cells within a radius of two have, on
# average.


# %%
def reach(place, held, share=0.9, radius=2.0):
    near = cKDTree(place).sparse_distance_matrix(cKDTree(place), radius, output_type="coo_matrix").tocsr()
    near.data[:] = 1.0
    near = near + sp.identity(len(place))
    near = sp.diags(1 / np.asarray(near.sum(axis=1)).ravel()) @ near
    signal = held.astype(float)
    for _ in range(100):
        signal = np.where(held, 1.0, share * (near @ signal))
    return signal


n, side = 500, np.sqrt(500)
base, types = rng.gamma(2.0, 1.0, 80), np.exp(0.5 * rng.standard_normal((2, 80)))
slices = []
for number in range(4):
    place, kind = side * rng.random((n, 2)), rng.integers(0, 2, n)
    centres = side * np.array([[0.3, 0.3], [0.7, 0.75]])
    held = (number < 3) & (np.linalg.norm(place[:, None] - centres, axis=2) < 3.2).any(axis=1)
    log = np.log(base * types[kind])
    log[:, :20] += 1.2 * held[:, None]
    log[:, 20:50] += reach(place, held)[:, None] * np.where(np.arange(30) % 2, 1.0, -1.0)
    rate = np.exp(log) / np.exp(log).sum(axis=1, keepdims=True) * rng.lognormal(np.log(1500), 0.3, (n, 1))
    counts = rng.poisson(rng.gamma(8.0, rate / 8)).astype(np.float32)
    obs = {"perturbation": np.where(held, "KO", "control"), "cell_type": np.where(kind, "type_1", "type_0")}
    obs = pd.DataFrame({**obs, "slice": f"slice_{number}"}, index=[f"s{number}_c{i}" for i in range(n)])
    slices.append(ad.AnnData(sp.csr_matrix(counts), obs=obs, obsm={"spatial": place}))
adata = ad.concat(slices)
adata.var_names = [f"gene_{i}" for i in range(80)]
pd.crosstab(adata.obs["slice"], adata.obs["perturbation"])

# %% [markdown]
# ## Train
#
# The slice is the batch: cells are neighbours within a slice only.

# %%
CFMVC.setup_anndata(
    adata, batch_key="slice", labels_key="cell_type", perturbation_key="perturbation", spatial_key="spatial"
)
model = CFMVC(adata, n_intrinsic=10)
model.train({"representation": 20, "flow": 3}, accelerator="cpu", enable_progress_bar=False)

# %% [markdown]
# ## Perturb a region of the slice that has none
#
# `get_niche_response` learns from control cells how far they follow knock-out cells around them; `found` says
# whether a response is told from chance. `tl.virtual_tissue` perturbs the region and passes the change on, round by
# round. A region is a mask, a column of `obs`, or the corners of a polygon.

# %%
niche = model.get_niche_response("KO")
print(f"neighbours follow: {niche.found}, p = {niche.p_value:.2f}")
tissue = adata[adata.obs["slice"] == "slice_3"].copy()
middle = tissue.obsm["spatial"].mean(axis=0)
region = np.linalg.norm(tissue.obsm["spatial"] - middle, axis=1) < 4
tl.virtual_tissue(tissue, model, "KO", region, niche=niche)
tissue.obs["virtual_tissue_state"].value_counts().to_frame().T

# %% [markdown]
# Beside what was planted:

# %%
planted = reach(tissue.obsm["spatial"], region)
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.9), layout="constrained")
pl.tissue(tissue.obsm["spatial"], tissue.obs["virtual_tissue"], region, label="response", title="predicted", ax=axes[0])
pl.tissue(tissue.obsm["spatial"], planted, region, label="share of the effect", title="planted", ax=axes[1])
plt.show()

# %% [markdown]
# ## How far does it reach?

# %%
report = tissue.uns["virtual_tissue"]
print(f"decay length: {report['decay_length']:.1f} cell distances")
ax = plt.subplots(figsize=(4.4, 3.0), layout="constrained")[1]
ax.plot(report["by_distance"]["distance"], report["by_distance"]["response"], marker="o", color="#D55E00")
ax.set(xlabel="distance to the region", ylabel="mean response of the latent", ylim=(0, None))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# Genes whose expression becomes patchier: Moran's I before and after.

# %%
moran = report["moran"].assign(rise=lambda t: t["after"] - t["before"]).sort_values("rise", ascending=False)
moran.head(5).round(2)

# %% [markdown]
# The first of them, before and after:

# %%
gene = moran["gene"].iloc[0]
column = tissue.var_names.get_loc(gene)
both = {"before": tissue.X[:, [column]], "after": tissue.layers["virtual_tissue"][:, [column]]}
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.9), layout="constrained")
for ax, (when, values) in zip(axes, both.items(), strict=True):
    log = np.log1p(np.asarray(values.todense()).ravel())
    pl.tissue(tissue.obsm["spatial"], log, region, label=f"log1p counts of {gene}", title=when, ax=ax)
plt.show()

# %% [markdown]
# What this rests on: control cells near perturbed ones, compared with control cells of the same type and slice far from
# them. It says what neighbours do, not why, and a niche that differs for other reasons (a border, a vessel) looks the
# same; a response should be seen in more than one slice.
