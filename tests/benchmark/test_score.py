import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import DataError, UnknownConditionError


@pytest.fixture
def cells(rng):
    """Counts of control and perturbed cells, 100 genes of which twenty double and twenty halve."""
    profile = rng.gamma(2.0, 1.0, 100)
    fold = np.repeat([2.0, 0.5, 1.0], [20, 20, 60])

    def draw(rate, n):
        mean = rng.lognormal(6.5, 0.2, (n, 1)) * rate / rate.sum()
        return sparse.csr_matrix(rng.poisson(rng.gamma(4.0, mean / 4.0)).astype(float))

    return draw(profile * fold, 90), draw(profile, 80), draw(profile * fold, 90)


@pytest.fixture
def folds(tiny_adata):
    return list(bm.leave_one_context_out(tiny_adata))


def test_the_truth_scores_best_and_control_worst(cells):
    truth, control, replicate = cells
    right, none = (
        bm.score_prediction(bm.Prediction(x), truth, control, np.random.default_rng(0)).values
        for x in (replicate, control)
    )
    assert right["pearson_delta"] > 0.9 and none["pearson_delta"] == 0.0
    assert right["weighted_mse"] < 0.05 * none["weighted_mse"]
    assert abs(right["energy_distance"]) < 0.1 * right["energy_scale"]
    assert none["energy_distance"] == pytest.approx(none["energy_scale"], rel=0.2)
    assert abs(right["mmd_distance"]) < 0.1 * right["mmd_scale"]
    assert right["sig_jaccard"] > 0.6 and none["sig_jaccard"] < 0.05
    assert right["de_overlap"] > 0.7 and none["de_overlap"] < 0.05
    assert right["direction_fidelity"] > 0.7 and right["auprc_de"] > 0.9
    assert right["lfc_nmae"] < 0.3 and none["lfc_nmae"] == pytest.approx(1.0, abs=0.1)
    assert abs(right["variance_log_ratio"]) < 0.3
    assert abs(right["zero_share_error"]) < 0.02


def test_ceiling_is_one_half_against_the_other(cells):
    truth, control, _ = cells
    score = bm.score_ceiling(truth, control, np.random.default_rng(0))
    assert score.values["pearson_delta"] > 0.9
    assert abs(score.values["energy_distance"]) < 0.15 * score.values["energy_scale"]
    assert not np.array_equal(score.effect, score.true_effect)


def test_what_is_specific_to_a_perturbation_needs_the_profile_of_the_others(cells):
    truth, control, replicate = cells
    shared = bm.Prediction(truth).log_values().mean(axis=0)
    shared[:10] += 0.5  # the others differ from this perturbation in ten genes
    call = (bm.Prediction(replicate), truth, control)
    plain = bm.score_prediction(*call, np.random.default_rng(0)).values
    specific = bm.score_prediction(*call, np.random.default_rng(0), perturbed_profile=shared).values
    assert specific["pearson_delta_specific"] > 0.5
    assert plain == {name: value for name, value in specific.items() if name != "pearson_delta_specific"}


def test_more_predicted_cells_than_true_ones_are_reduced(cells, rng):
    truth, control, replicate = cells
    twice = sparse.vstack([replicate, replicate], format="csr")
    score = bm.score_prediction(bm.Prediction(twice), truth, control, rng)
    assert score.values["pearson_delta"] > 0.9


def test_nan_in_a_prediction_is_an_error(cells, rng):
    truth, control, _ = cells
    values = bm.Prediction(truth).log_values()
    values[0, 0] = np.nan
    with pytest.raises(FloatingPointError, match="1 non-finite"):
        bm.score_prediction(bm.Prediction(values, "log1p_cp10k"), truth, control, rng)


def test_evaluate_is_tidy_reproducible_and_paired(tiny_adata, folds):
    predictors = {"no change": bm.baseline_predictor(bm.NoChange), "mean": bm.baseline_predictor(bm.MeanShift)}
    scores = bm.evaluate(tiny_adata, folds[:2], predictors, seeds=(0, 3))
    pd.testing.assert_frame_equal(scores, bm.evaluate(tiny_adata, folds[:2], predictors, seeds=(0, 3)))
    assert list(scores.columns) == ["method", "condition", "context", "seed", "metric", "value"]
    assert list(scores.method.unique()) == ["no change", "mean", bm.CEILING]
    assert not scores.duplicated(["method", "condition", "context", "seed", "metric"]).any()
    scale = scores[(scores.metric == "energy_scale") & (scores.method != bm.CEILING)]
    assert (scale.groupby(["context", "seed"]).value.nunique() == 1).all()  # the same halves for all methods
    alone = bm.evaluate(tiny_adata, folds[:2], {"mean": predictors["mean"]}, seeds=(3,))
    both = scores[(scores.method == "mean") & (scores.seed == 3)]
    np.testing.assert_array_equal(alone[alone.method == "mean"].value, both.value)


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


def tidy(values):
    """Table of two contexts: {(method, context): (distance, scale, pearson)}."""
    rows = [
        (method, "A", context, 0, metric, value)
        for (method, context), numbers in values.items()
        for metric, value in zip(
            ("energy_distance", "energy_scale", "mmd_distance", "mmd_scale", "pearson_delta"),
            (*numbers[:2], *numbers[:2], numbers[2]),
            strict=True,
        )
    ]
    return pd.DataFrame(rows, columns=["method", "condition", "context", "seed", "metric", "value"])


@pytest.fixture
def table():
    return tidy(
        {
            ("model", "x"): (0.1, 1.0, 0.9),
            ("model", "y"): (0.3, 9.0, 0.7),
            ("base", "x"): (0.5, 1.0, 0.8),
            ("base", "y"): (1.5, 9.0, np.nan),
        }
    )


def test_summary_divides_sums_and_leaves_undefined_scores_out(table):
    summary = bm.summarise(table)
    assert list(summary.index) == ["model", "base"]
    assert list(summary.columns) == ["energy", "mmd", "pearson_delta"]
    assert summary.loc["model", "energy"] == pytest.approx(0.4 / 10)
    assert summary.loc["base", "mmd"] == pytest.approx(2.0 / 10)
    assert summary.loc["base", "pearson_delta"] == pytest.approx(0.8)


def test_paired_differences_and_their_interval_over_contexts(table, rng):
    table = table.fillna(0.7)
    gain = bm.paired_differences(table, "model", "base", rng, n_bootstrap=400)
    assert gain.loc["energy", "difference"] == pytest.approx(-0.16)
    assert gain.loc["pearson_delta", "difference"] == pytest.approx(0.05)
    # draws are xx, xy or yy: -.4, -.16 and -.1333 for energy; .1, .05 and 0 for Pearson
    assert gain.loc["energy", ["low", "high"]].tolist() == pytest.approx([-0.4, -1.2 / 9])
    assert gain.loc["pearson_delta", ["low", "high"]].tolist() == pytest.approx([0.0, 0.1])


def test_paired_differences_refuse_unknown_methods_and_one_context(table, rng):
    with pytest.raises(UnknownConditionError, match="No scores of 'other'; there are: base, model"):
        bm.paired_differences(table, "model", "other", rng)
    with pytest.raises(DataError, match="one context"):
        bm.paired_differences(table[table.context == "x"], "model", "base", rng)
