import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import DataError


@pytest.fixture
def folds(tiny_adata):
    return list(bm.leave_one_context_out(tiny_adata))


def without_time(scores):
    return scores[scores.metric != "cpu_seconds"].reset_index(drop=True)


def test_evaluate_is_tidy_reproducible_and_paired(tiny_adata, folds):
    predictors = {"no change": bm.baseline_predictor(bm.NoChange), "mean": bm.baseline_predictor(bm.MeanShift)}
    scores = bm.evaluate(tiny_adata, folds[:2], predictors, seeds=(0, 3))
    again = bm.evaluate(tiny_adata, folds[:2], predictors, seeds=(0, 3))
    pd.testing.assert_frame_equal(without_time(scores), without_time(again))
    assert list(scores.columns) == ["method", "condition", "context", "seed", "metric", "value"]
    assert list(scores.method.unique()) == ["no change", "mean", bm.CEILING]
    assert not scores.duplicated(["method", "condition", "context", "seed", "metric"]).any()
    scale = scores[(scores.metric == "energy_scale") & (scores.method != bm.CEILING)]
    assert (scale.groupby(["context", "seed"]).value.nunique() == 1).all()  # the same halves for all methods
    alone = bm.evaluate(tiny_adata, folds[:2], {"mean": predictors["mean"]}, seeds=(3,))
    both = scores[(scores.method == "mean") & (scores.seed == 3)]
    np.testing.assert_array_equal(without_time(alone[alone.method == "mean"]).value, without_time(both).value)


def test_predictors_see_training_and_control_cells_only(tiny_adata, folds):
    seen = []

    def spy(train, query, fold, seed):
        seen.append((train.obs_names, query.obs_names, seed))
        return bm.Prediction(query.X)

    bm.evaluate(tiny_adata, folds[:1], {"spy": spy}, seeds=(0, 1))
    hidden = set(tiny_adata.obs_names[folds[0].truth])
    assert all(hidden.isdisjoint(train) and hidden.isdisjoint(query) for train, query, _ in seen)
    assert seen[0][2] != seen[1][2]


def test_discrimination_is_scored_across_contexts_and_perturbations(tiny_adata, folds):
    scores = bm.evaluate(tiny_adata, folds, {"pooled": bm.baseline_predictor(bm.PooledOtherContexts)}, seeds=(0,))
    across = scores[scores.metric == "context_discrimination"]
    assert set(across.context) == {"*"} and set(across.condition) == {"A", "B"}
    across = scores[scores.metric == "perturbation_discrimination"]
    assert set(across.condition) == {"*"} and set(across.context) == {"B", "T", "mono"}
    ceiling = bm.summarise(scores).loc[bm.CEILING]
    assert ceiling["perturbation_discrimination"] == 1.0
    assert "pearson_delta_specific" in ceiling


def test_evaluate_refuses_nothing_and_a_taken_name(tiny_adata, folds):
    with pytest.raises(DataError, match="0 folds and 2 seeds"):
        bm.evaluate(tiny_adata, [], {})
    with pytest.raises(DataError, match="'ceiling' is computed"):
        bm.evaluate(tiny_adata, folds, {"ceiling": bm.baseline_predictor(bm.NoChange)})


def test_predictions_in_a_store_are_not_made_again(tiny_adata, folds, tmp_path):
    calls = []

    def predictor(train, query, fold, seed):
        calls.append((fold.id, seed))
        return bm.NoChange().predict(query.X, fold.condition, fold.context, 30, np.random.default_rng(seed))

    store = bm.PredictionStore(tmp_path)
    first = bm.evaluate(tiny_adata, folds[:2], {"mine": predictor}, (0, 1), store=store)
    assert len(calls) == 4
    store.path("mine", folds[1], 0).unlink()
    again = bm.evaluate(tiny_adata, folds[:2], {"mine": predictor}, (0, 1), store=store)
    assert calls[4:] == [(folds[1].id, 0)]
    pd.testing.assert_frame_equal(without_time(first), without_time(again))


def test_cpu_time_is_that_of_the_predictor_or_measured(tiny_adata, folds):
    def working(train, query, fold, seed):
        for _ in range(20):
            np.linalg.svd(np.ones((200, 200)) + np.eye(200))
        return bm.Prediction(query.X)

    predictors = {"known": lambda train, query, fold, seed: bm.Prediction(query.X, "counts", 7.0), "measured": working}
    scores = bm.evaluate(tiny_adata, folds[:1], predictors, (0,)).set_index(["method", "metric"]).value
    assert scores["known", "cpu_seconds"] == 7.0
    assert 0 < scores["measured", "cpu_seconds"] < 60


def test_each_prediction_is_reported(tiny_adata, folds):
    seen = []
    bm.evaluate(
        tiny_adata,
        folds[:2],
        {"floor": bm.baseline_predictor(bm.NoChange)},
        (0, 4),
        report=lambda name, fold, seed: seen.append((name, fold.number, seed)),
    )
    assert sorted(seen) == [("floor", number, seed) for number in (0, 1) for seed in (0, 4)]
