"""A search finds what predicts best, prunes, goes on after a kill, and records NaN as a failure."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import tune
from cfmvc_scvi.errors import DataError, NonFiniteError, UnknownConditionError

optuna = pytest.importorskip("optuna")
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

SETUP = {"labels_key": "cell_type", "batch_key": "batch", "perturbation_key": "perturbation"}
QUICK: dict[str, Any] = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "pair_kwargs": {"batch_size": 32, "steps_per_epoch": 2},
}
SPACE = {"model.n_hidden": CategoricalDistribution([8, 16]), "train.plan_kwargs.lr": FloatDistribution(1e-4, 1e-2)}

pytestmark = pytest.mark.extra


def scored(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    """Let the score of a trial be a function of its values and of the fold, without training."""

    def predictor(setup: Any, *, model_kwargs: Any, train_kwargs: Any, predict_kwargs: Any) -> Any:
        return lambda train, query, fold, seed: value(predict_kwargs["heterogeneity"], fold)

    monkeypatch.setattr("cfmvc_scvi.tune.study.cfmvc_predictor", predictor)
    monkeypatch.setattr("cfmvc_scvi.tune.study.score_prediction", lambda prediction, *_: prediction)
    monkeypatch.setattr("cfmvc_scvi.tune.study._value", lambda score, metric: score)


CHEAP = {"predict.heterogeneity": FloatDistribution(0.0, 1.0)}


def test_options_are_nested() -> None:
    found = tune.options({"setup.sample_key": None, "train.plan_kwargs.lr": 0.1, "train.plan_kwargs.eps": 1.0})
    assert found["setup"] == {"sample_key": None} and found["train"] == {"plan_kwargs": {"lr": 0.1, "eps": 1.0}}
    assert found["model"] == found["predict"] == {}


@pytest.mark.parametrize("name", ["n_hidden", "modell.n_hidden", "model."])
def test_unknown_options_are_refused(tiny_adata: ad.AnnData, name: str) -> None:
    with pytest.raises(DataError, match=f"first '{name}'"):
        tune.search(tiny_adata, {name: IntDistribution(1, 2)}, setup=SETUP)


def test_impossible_searches_are_refused(tiny_adata: ad.AnnData) -> None:
    for wrong in ({"metric": "loss"}, {"n_folds": 0}, {"setup": {"perturbation_key": "perturbation"}}):
        with pytest.raises(DataError):
            tune.search(tiny_adata, CHEAP, **({"setup": SETUP} | wrong))
    with pytest.raises(UnknownConditionError):
        tune.search(tiny_adata, CHEAP, setup=SETUP, holdout="donor")


@pytest.mark.slow
def test_trials_train_and_predict_held_out_groups(tiny_adata: ad.AnnData) -> None:
    study = tune.search(tiny_adata, SPACE, setup=SETUP, train=QUICK, n_trials=2, n_folds=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert all(0 < trial.value < 5 and len(trial.intermediate_values) == 2 for trial in study.trials)


@pytest.mark.slow
def test_a_training_that_becomes_nan_is_a_failed_trial(tiny_adata: ad.AnnData) -> None:
    space = {"train.plan_kwargs.lr": CategoricalDistribution([1e30])}
    study = tune.search(tiny_adata, space, setup=SETUP, train=QUICK | {"max_epochs": 5}, n_trials=2, n_folds=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2


def test_the_best_value_is_found_and_the_worst_are_pruned(
    tiny_adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, lambda value, fold: abs(value - 0.3))
    study = tune.search(tiny_adata, CHEAP, setup=SETUP, n_trials=30)
    states = [trial.state for trial in study.trials]
    assert abs(study.best_params["predict.heterogeneity"] - 0.3) < 0.1
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert 3 < len(pruned) < 25 and states.count(TrialState.COMPLETE) + len(pruned) == 30
    assert all(abs(trial.params["predict.heterogeneity"] - 0.3) > study.best_value for trial in pruned)


def test_nan_goes_on_and_other_errors_stop(tiny_adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    def value(heterogeneity: float, fold: Any) -> float:
        if heterogeneity > 0.5:
            raise NonFiniteError("loss became nan")
        return heterogeneity

    scored(monkeypatch, value)
    study = tune.search(tiny_adata, CHEAP, setup=SETUP, n_trials=12)
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert failed and all(trial.params["predict.heterogeneity"] > 0.5 for trial in failed)
    assert len(study.trials) == 12 and study.best_value <= 0.5
    scored(monkeypatch, lambda *_: (_ for _ in ()).throw(DataError("wrong")))
    with pytest.raises(DataError, match="wrong"):
        tune.search(tiny_adata, CHEAP, setup=SETUP, n_trials=2)


def test_a_stored_search_goes_on(tiny_adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scored(monkeypatch, lambda value, fold: value)
    asked: dict[str, Any] = {"setup": SETUP, "storage": tmp_path / "search.db"}
    first = tune.search(tiny_adata, CHEAP, n_trials=3, **asked)
    again = tune.search(tiny_adata, CHEAP, n_trials=5, **asked)
    values = [trial.params["predict.heterogeneity"] for trial in again.trials]
    assert len(first.trials) == 3 or len(set(values)) == 5
    assert len(again.trials) == len(set(values)) == 5
    assert len(tune.search(tiny_adata, CHEAP, n_trials=5, **asked).trials) == 5


@pytest.mark.cluster
def test_a_killed_search_goes_on(tiny_adata: ad.AnnData, tmp_path: Path) -> None:
    tiny_adata.write_h5ad(tmp_path / "cells.h5ad")
    script = tmp_path / "search.py"
    script.write_text(
        "import anndata, sys\nfrom optuna.distributions import IntDistribution\nfrom cfmvc_scvi import tune\n"
        f"space, setup, train = {{'model.n_hidden': IntDistribution(8, 32)}}, {SETUP!r}, {QUICK!r}\n"
        "cells = anndata.read_h5ad(sys.argv[1])\n"
        "tune.search(cells, space, setup=setup, train=train, n_trials=3, storage=sys.argv[2])\n"
    )
    storage = tmp_path / "search.db"
    command = [sys.executable, str(script), str(tmp_path / "cells.h5ad"), str(storage)]
    process = subprocess.Popen(command, env=os.environ)
    address = f"sqlite:///{storage}"

    def states() -> list[TrialState]:
        try:
            return [trial.state for trial in optuna.load_study(study_name="cfmvc", storage=address).trials]
        except Exception:  # noqa: BLE001  # the data base is being made
            return []

    while process.poll() is None and TrialState.RUNNING not in states():
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states()[-1] == TrialState.RUNNING
    killed = optuna.load_study(study_name="cfmvc", storage=address).trials[-1].params
    subprocess.run(command, check=True)
    trials = optuna.load_study(study_name="cfmvc", storage=address).trials
    assert [trial.state for trial in trials].count(TrialState.RUNNING) == 0
    assert sum(trial.params == killed for trial in trials) >= 2 or not killed  # failed, and tried again
    assert np.isfinite([trial.value for trial in trials if trial.state == TrialState.COMPLETE]).all()
