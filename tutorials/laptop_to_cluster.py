# %% [markdown]
# # From a laptop to a cluster, and to a web service
#
# The same model where data do not fit into memory, training takes hours, and others want to ask. It was made for
# atlas-sized screens; every step runs here for real, small, offline, on simulated cells. It needs the extras
# `onnx`, `serve`, `client` and `tune`.

# %%
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import anndata as ad
import numpy as np
import optuna
import scvi
from optuna.distributions import CategoricalDistribution, FloatDistribution

import cfmvc_scvi
from cfmvc_scvi import CFMVC, export, tune
from cfmvc_scvi.client import Client
from cfmvc_scvi.runtime import Bundle

scvi.settings.seed = 0
adata = cfmvc_scvi.datasets.simulated_perturbation(
    1200, 120, n_cell_types=2, n_samples=1, perturbations=("A", "B"), combinations=False
)
adata.write_h5ad("cells.h5ad")
columns = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
quick = {"accelerator": "cpu", "enable_progress_bar": False}

# %% [markdown]
# ## Train from a file
#
# Opened with `backed="r"`, the counts stay in the file; minibatches are read as they are needed. With `checkpoint_dir`,
# each epoch is kept: after a crash or at the end of a job's time, `train(resume_from="run")` goes on from there, to the
# same weights, bit for bit.

# %%
backed = ad.read_h5ad("cells.h5ad", backed="r")
CFMVC.setup_anndata(backed, **columns)
model = CFMVC(backed)
model.train({"representation": 15, "flow": 2}, checkpoint_dir="run", **quick)
model.save("model", overwrite=True)
sorted(path.name for path in Path("model").iterdir())

# %% [markdown]
# ## Predict into a file
#
# Several perturbations in one pass, chunk by chunk; what is too large for memory is never in memory. A run that was
# killed goes on with the chunks that are missing.

# %%
control = adata[adata.obs["perturbation"] == "control"].copy()
model.predict_counterfactual(control, perturbation=["A", "B"], seed=0, batch_size=100, out="answers.zarr")
print(ad.read_zarr("answers.zarr"))

# %% [markdown]
# ## Several processes
#
# Every process runs the same script with the same seed; here two on one machine, by `torchrun`. With GPUs, say
# `accelerator="gpu"`. [Many cells, many conditions](../scale.md) has the batch script for SLURM, and Dask for many
# files.

# %%
script = """
import anndata, scvi
from cfmvc_scvi import CFMVC

scvi.settings.seed = 0
adata = anndata.read_h5ad("cells.h5ad")
CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
model = CFMVC(adata)
model.train(
    {"representation": 15, "flow": 2}, batch_size=64, accelerator="cpu", devices=2,
    strategy="ddp_find_unused_parameters_true", enable_progress_bar=False,
)
if model.trainer.is_global_zero:
    model.save("model_of_two", overwrite=True)
"""
Path("train.py").write_text(script)
torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
subprocess.run(torchrun, check=True, capture_output=True, timeout=600, env=one_thread)
two = CFMVC.load("model_of_two", adata=False, accelerator="cpu")
effects = [m.get_effect("A")["delta"] for m in (model, two)]
print(f"expected effects, one process and two: correlation {np.corrcoef(*effects)[0, 1]:.3f}")

# %% [markdown]
# ## Search for options
#
# `tune.search` tries options by how well hidden groups of cells are predicted. With `storage=`, several processes and
# machines share one study. Two trials here, so that it ends soon; take fifty.

# %%
optuna.logging.set_verbosity(optuna.logging.WARNING)
space = {"model.n_intrinsic": CategoricalDistribution([8, 32]), "predict.heterogeneity": FloatDistribution(0.0, 1.0)}
brief = {"max_epochs": {"representation": 5, "flow": 1}, **quick}
study = tune.search(adata, space, setup=columns, train=brief, n_trials=2, n_folds=1, storage="search.db")
print(tune.options(study.best_params))

# %% [markdown]
# ## Export: prediction without torch
#
# An exported model is a directory of ONNX graphs, arrays and checksums; it needs numpy, scipy and ONNX Runtime.

# %%
export.to_onnx(model, "exported", overwrite=True)
bundle = Bundle.load("exported")
bundle.check()
here = model.predict_counterfactual(control, perturbation="A", seed=0)
there = bundle.counterfactual(control, perturbation="A", seed=0)
print(f"equal counts: {np.mean(here.X.toarray() == there.X.toarray()):.2%}")

# %% [markdown]
# ## Serve
#
# A web service of the exported model. It listens on this machine only; anywhere else it asks for a token
# (`CFMVC_SCVI_TOKEN`). [Serving](../serving.md) tells who gets in and how far.

# %%
port = "8765"
server = subprocess.Popen(
    [sys.executable, "-m", "cfmvc_scvi", "serve", "exported", "--port", port], stderr=subprocess.DEVNULL
)
try:
    for _ in range(120):
        try:
            urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2)
            break
        except OSError:  # not there yet
            time.sleep(0.5)
    with Client(f"http://127.0.0.1:{port}") as client:
        print(client.counterfactual(control[:50].copy(), perturbation="A"))
finally:
    server.terminate()
    server.wait(30)
