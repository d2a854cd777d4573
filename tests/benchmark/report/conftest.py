import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pytest

from cfmvc_scvi import benchmark as bm

COLUMNS = bm.Columns()
BASELINES = {"no change": bm.NoChange, "mean shift": bm.MeanShift}
MODELS = {"CFMVC": bm.FoldChangeResampling, "CFMVC, no flow": bm.NearestContextShift}


def _write_store(adata: ad.AnnData, directory: Path, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """Store of a run on the tiny data, in which simple predictors play the model."""
    store = bm.PredictionStore(directory)
    folds = bm.make_folds(adata)
    methods = {name: bm.baseline_predictor(cls) for name, cls in {**BASELINES, **MODELS}.items()}
    scores = bm.evaluate(adata, folds, methods, seeds, store=store)
    used = ("perturbation", "cell_type")
    run = {
        "holdout": "cell_type",
        "columns": {"perturbation_key": "perturbation", "context_key": "cell_type", "control": "control"},
        "seeds": list(seeds),
        "methods": {name: {} for name in methods},
        "folds": [{"id": fold.id, "condition": fold.condition, "context": fold.context} for fold in folds],
        "fingerprint": bm.data_fingerprint(adata, used),
        "versions": {"cfmvc-scvi": "0.1.0"},
    }
    (directory / "run.json").write_text(json.dumps(run))
    store.write_scores(scores)
    return directory


@pytest.fixture
def write_store() -> Callable[..., Path]:
    """Run simple predictors on data, and write the store of the run."""
    return _write_store


@pytest.fixture(scope="session")
def adata(_counts_adata: ad.AnnData) -> ad.AnnData:
    """One perturbation and control in three types: three held-out conditions. Not to be altered."""
    return _counts_adata[_counts_adata.obs["perturbation"] != "B"].copy()


@pytest.fixture(scope="session")
def store(adata: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of a run on these data, with two seeds."""
    return _write_store(adata, tmp_path_factory.mktemp("run") / "run")
