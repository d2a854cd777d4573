from collections.abc import Callable, Sequence
from pathlib import Path

import anndata as ad
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi import tl


def _write_store(adata: ad.AnnData, directory: Path, seeds: int = 2, only: Sequence[str] | None = None) -> Path:
    columns = bm.Columns()
    baselines = {"no change": bm.NoChange, "mean shift": bm.MeanShift}
    played = {"CFMVC": bm.FoldChangeResampling, bm.NO_FLOW: bm.NearestContextShift}
    models = {name: bm.baseline_predictor(baseline, columns) for name, baseline in played.items()}
    tl.benchmark(adata, models=models, baselines=baselines, seeds=seeds, only=only, out=directory, progress=False)
    return directory


@pytest.fixture
def write_store() -> Callable[..., Path]:
    """Run simple predictors, two of which play the model, and return the store of the run."""
    return _write_store


@pytest.fixture(scope="session")
def adata(_counts_adata: ad.AnnData) -> ad.AnnData:
    """One perturbation and control in three types: three held-out conditions. Not to be altered."""
    return _counts_adata[_counts_adata.obs["perturbation"] != "B"].copy()


@pytest.fixture(scope="session")
def store(adata: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of a run on these data, with two seeds."""
    return _write_store(adata, tmp_path_factory.mktemp("run") / "run")
