import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi import tl
from cfmvc_scvi.errors import DataError, UnknownConditionError

SIMPLE = {"baselines": ["no change", "mean shift"], "seeds": 2, "progress": False}


class Copies:
    name = "copies"

    def fit(self, train, seed):
        pass

    def predict(self, query, fold, seed):
        return query


def without_time(scores):
    return scores[scores.metric != "cpu_seconds"].reset_index(drop=True)


def test_models_and_baselines_are_scored_and_stored(tiny_adata, tmp_path):
    out = tmp_path / "run"
    scores = tl.benchmark(tiny_adata, "cell_type", models=[Copies()], setup={"batch_key": "batch"}, out=out, **SIMPLE)
    assert list(scores["method"].unique()) == ["no change", "mean shift", "copies", "ceiling"]
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.h5ad"))
    assert len(files) == 3 * 6 * 2
    assert files[0] == "predictions/copies/000-A-B-seed0.h5ad"
    run = json.loads((out / "run.json").read_text())
    assert run["holdout"] == "cell_type" and run["seeds"] == [0, 1]
    assert run["columns"] == {
        "perturbation_key": "perturbation", "context_key": "cell_type", "control": "control", "dose_key": None,
    }  # fmt: skip
    assert run["methods"]["mean shift"] == {"baseline": "MeanShift()"}
    assert run["folds"][0] | {"id": "000-A-B", "n_truth": 40, "n_query": 40, "n_train": 320} == run["folds"][0]
    assert run["fingerprint"] == bm.data_fingerprint(tiny_adata, ["perturbation", "cell_type"])
    pd.testing.assert_frame_equal(bm.PredictionStore(out).read_scores(), scores, check_exact=True)
    assert bm.compare(scores, "copies").loc["pearson_delta", "by"] == "mean shift"


def test_a_run_is_gone_on_with(tiny_adata, tmp_path):
    models = {"copies": Copies()}
    first = tl.benchmark(tiny_adata, models=models, out=tmp_path, **SIMPLE)
    kept = tmp_path / "predictions" / "mean_shift" / "001-A-T-seed0.h5ad"
    before = kept.stat().st_mtime_ns
    (tmp_path / "predictions" / "copies" / "000-A-B-seed1.h5ad").unlink()
    (tmp_path / "scores.csv").unlink()
    again = tl.benchmark(tiny_adata, models=models, out=tmp_path, **SIMPLE)
    assert kept.stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(without_time(first), without_time(again))
    with pytest.raises(DataError, match="has a run already"):
        tl.benchmark(tiny_adata, models=models, out=tmp_path, resume=False, **SIMPLE)


def test_other_data_or_settings_are_refused(tiny_adata, tmp_path):
    tl.benchmark(tiny_adata, models={}, out=tmp_path, only=["T"], **SIMPLE)
    other = tiny_adata.copy()
    other.X[0, 0] += 1
    with pytest.raises(DataError, match="different: fingerprint"):
        tl.benchmark(other, models={}, out=tmp_path, only=["T"], **SIMPLE)
    with pytest.raises(DataError, match="different: .*holdout"):
        tl.benchmark(tiny_adata, "batch", models={}, out=tmp_path, **SIMPLE)
    with pytest.raises(DataError, match="different: settings of 'mean shift'"):
        changed = SIMPLE | {"baselines": {"no change": bm.NoChange, "mean shift": bm.NearestContextShift}}
        tl.benchmark(tiny_adata, models={}, out=tmp_path, only=["T"], **changed)
    more = tl.benchmark(tiny_adata, models={}, out=tmp_path, only=["T", "mono"], **SIMPLE)  # groups may be added
    assert set(more.context) == {"T", "mono", "*"}


def test_predictions_made_elsewhere_join(tiny_adata, tmp_path):
    first = tl.benchmark(tiny_adata, models={"copies": Copies()}, out=tmp_path / "a", **SIMPLE)
    files = tmp_path / "a" / "predictions" / "copies"
    second = tl.benchmark(tiny_adata, models=[files], out=tmp_path / "b", **SIMPLE)
    pd.testing.assert_frame_equal(without_time(first), without_time(second))
    assert (tmp_path / "b" / "predictions" / "copies" / "000-A-B-seed0.h5ad").exists()


def test_what_is_asked_must_be_there(tiny_adata):
    with pytest.raises(UnknownConditionError, match="'NK' cannot be held out; what can: A, B, T, mono"):
        tl.benchmark(tiny_adata, models={}, only=["NK"], **SIMPLE)
    with pytest.raises(UnknownConditionError, match="neither a directory nor one of: CFMVC, CFMVC, no flow"):
        tl.benchmark(tiny_adata, models=["scGen"], **SIMPLE)
    with pytest.raises(UnknownConditionError, match="'mean' is no baseline"):
        tl.benchmark(tiny_adata, models={}, baselines=["mean"])
    with pytest.raises(DataError, match="'no change' is the name of a baseline"):
        tl.benchmark(tiny_adata, models={"no change": Copies()}, **SIMPLE)
    with pytest.raises(DataError, match="two models are called 'copies'"):
        tl.benchmark(tiny_adata, models=[Copies(), Copies()], **SIMPLE)


def test_counts_may_be_in_a_layer(tiny_adata):
    expected = tl.benchmark(tiny_adata, models={}, only=["T"], **SIMPLE)
    tiny_adata.layers["counts"] = tiny_adata.X.copy()
    tiny_adata.X = np.log1p(tiny_adata.X)
    with pytest.raises(DataError):
        tl.benchmark(tiny_adata, models={}, only=["T"], **SIMPLE)
    scores = tl.benchmark(tiny_adata, models={}, only=["T"], setup={"layer": "counts"}, **SIMPLE)
    pd.testing.assert_frame_equal(without_time(scores), without_time(expected))


def test_the_held_out_column_becomes_a_context_of_the_model():
    full, columns = bm.benchmark_setup("donor", {"labels_key": "cell_type"})
    assert full["sample_key"] == "donor" and columns.context_key == "donor"
    assert bm.benchmark_setup("cell_type")[0]["labels_key"] == "cell_type"
    assert bm.benchmark_setup("perturbation", {"labels_key": "replicate"})[1].context_key == "replicate"
    assert bm.benchmark_setup("dose", {"dose_key": "dose"})[1] == bm.Columns(context_key=None, dose_key="dose")
    with pytest.raises(DataError, match="one of them must be 'lab'"):
        bm.benchmark_setup("lab", {"labels_key": "cell_type", "sample_key": "donor"})


@pytest.mark.filterwarnings("ignore::UserWarning")  # of lightning, about loaders and modules
def test_default_models_share_one_training(tiny_adata, monkeypatch):
    trained = []
    plain = bm.default_models

    def short(*args, **names):
        predictors = plain(*args, **names, train_kwargs={"max_epochs": 1, "accelerator": "cpu"})
        training = next(iter(predictors.values()))._training
        training.prepare = lambda cells: trained.append(cells.n_obs)
        return predictors

    monkeypatch.setattr(bm, "default_models", short)
    scores = tl.benchmark(tiny_adata, baselines=["no change"], seeds=[3], only=["T"], progress=False)
    assert trained == [320, 320]  # A in T, B in T
    assert {"CFMVC", "CFMVC, no flow", "latent arithmetic"} <= set(scores["method"])
    wide = scores[scores.condition == "A"].pivot_table(index="metric", columns="method", values="value")
    assert (wide.loc["cpu_seconds", ["CFMVC", "CFMVC, no flow", "latent arithmetic"]] > 0.1).all()
    assert (wide.loc[["trust", "relative_error", "coverage_90"], ["CFMVC", "CFMVC, no flow"]] > 0).all(axis=None)
    assert wide.loc["energy_distance", "CFMVC"] != wide.loc["energy_distance", "CFMVC, no flow"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of lightning, about loaders and modules
def test_held_out_perturbations_are_described_by_their_targets(tiny_adata):
    label = tiny_adata.obs["perturbation"].astype(str).to_numpy()
    genes = np.array([f"gene{i}" for i in range(1, 5)])
    tiny_adata.obs["perturbation"] = np.where(label == "control", label, genes[np.arange(len(label)) % 4])
    setup, columns = bm.benchmark_setup("perturbation", {"labels_key": "cell_type"})
    quick = {"max_epochs": 1, "accelerator": "cpu"}
    models = bm.default_models("perturbation", setup, columns, conditions=["control", *genes], train_kwargs=quick)
    scores = tl.benchmark(
        tiny_adata, "perturbation", models={"CFMVC": models["CFMVC"]}, baselines=["mean of others"], seeds=1,
        setup={"labels_key": "cell_type"}, only=["gene1"], progress=False,
    )  # fmt: skip
    assert {"CFMVC", "mean of others"} <= set(scores["method"])
    assert models["CFMVC"].settings["prepare"] == "_CoExpression"
    with_own = bm.default_models("perturbation", setup | {"perturbation_embeddings_key": "mine"}, columns)
    assert with_own["CFMVC"].settings["prepare"] is None


KILLED = """
import sys, time
import anndata as ad
from cfmvc_scvi import tl
class Slow:
    name = "slow"
    def fit(self, train, seed): pass
    def predict(self, query, fold, seed):
        time.sleep({wait})
        return query
if __name__ == "__main__":
    tl.benchmark(ad.read_h5ad({data!r}), models=[Slow()], baselines=["no change"], seeds=2, out={out!r}, progress=False)
"""


@pytest.mark.reliability
def test_a_killed_run_is_gone_on_with(tiny_adata, tmp_path):
    data, out = tmp_path / "cells.h5ad", tmp_path / "run"
    tiny_adata.write_h5ad(data)

    def start(wait):
        return subprocess.Popen([sys.executable, "-c", KILLED.format(wait=wait, data=str(data), out=str(out))])

    process, deadline = start(0.5), time.monotonic() + 120
    while len(list(out.glob("predictions/slow/*.h5ad"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("predictions/*/*.h5ad")}
    assert 3 <= len([path for path in done if path.parent.name == "slow"]) < 12
    assert not (out / "scores.csv").exists()
    assert start(0.0).wait() == 0
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    whole = tl.benchmark(tiny_adata, models={}, baselines=["no change"], seeds=2, progress=False)
    scores = bm.PredictionStore(out).read_scores()
    own = scores[(scores.method == "no change") & (scores.metric != "cpu_seconds")]
    expected = whole[(whole.method == "no change") & (whole.metric != "cpu_seconds")]
    np.testing.assert_array_equal(own.value, expected.value)
