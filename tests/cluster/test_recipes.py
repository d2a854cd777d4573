"""The recipes of docs/scale.md for Dask and Ray run as they stand, but for their sizes."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation

pytestmark = [pytest.mark.cluster, pytest.mark.extra]

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
SIZES = {"n_cells": 400, "n_genes": 40, "n_cell_types": 2, "perturbations": ("IFNb",), "combinations": False, "seed": 0}
SETUP = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def run(folder: Path, name: str, before: str, replaced: dict[str, str]) -> str:
    """Run a script of the page in a folder, after some lines, with smaller sizes; return what it prints."""
    (code,) = re.findall(rf"^```python\n(# {name}\n.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for old, new in replaced.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    (folder / name).write_text(f"{before}\n{code}")
    source = str(Path(__file__).parents[2] / "src")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    done = subprocess.run([sys.executable, name], cwd=folder, env=env, timeout=1200, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs("distributed")
def test_dask_predicts_files(tmp_path: Path) -> None:
    adata = simulated_perturbation(**SIZES)
    CFMVC.setup_anndata(adata, **SETUP)
    model = CFMVC(adata, n_intrinsic=4, n_hidden=8)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "model")
    control = adata[adata.obs["perturbation"] == "control"].copy()
    del control.uns["_scvi_uuid"], control.uns["_scvi_manager_uuid"]
    parts = {"a": control[:30].copy(), "b": control[30:60].copy()}
    for name, cells in parts.items():
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    printed = run(tmp_path, "predict.py", 'paths = ["a.h5ad", "b.h5ad"]', {"n_workers=8": "n_workers=2"})
    assert sorted(re.findall(r"^\S+\.zarr$", printed, re.MULTILINE)) == ["a.IFNb.zarr", "b.IFNb.zarr"]
    for name, cells in parts.items():
        expected = model.predict_counterfactual(cells, perturbation="IFNb", seed=0)
        assert abs(ad.read_zarr(tmp_path / f"{name}.IFNb.zarr").X - expected.X).max() == 0


@needs("ray", "hyperopt", "scib_metrics", "muon")
def test_ray_tunes_the_stages_of_a_training(tmp_path: Path) -> None:
    before = (
        "from cfmvc_scvi import CFMVC\nfrom cfmvc_scvi.datasets import simulated_perturbation\n"
        f"adata = simulated_perturbation(**{SIZES})\n"
        "QUICK = {'max_epochs': 2, 'pair_kwargs': {'batch_size': 32, 'steps_per_epoch': 2}}\n"
    )
    each = "    for result in found.result_grid:\n        print('loss', result.metrics['flow_loss_validation'])"
    replaced = {
        "num_samples=20": "num_samples=2",
        '{"accelerator"': '{**QUICK, "accelerator"',
        'config["train_params"]': f'config["train_params"]\n{each}',
    }
    losses = re.findall(r"^loss (\S+)$", run(tmp_path, "search.py", before, replaced), re.MULTILINE)
    assert len(losses) == 2 and 0 < float(losses[0]) != float(losses[1]) > 0
