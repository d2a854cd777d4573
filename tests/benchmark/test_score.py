import numpy as np
import pytest
from scipy import sparse

from cfmvc_scvi import benchmark as bm


@pytest.fixture
def cells(rng):
    """Counts of control and perturbed cells, 100 genes of which twenty double and twenty halve."""
    profile = rng.gamma(2.0, 1.0, 100)
    fold = np.repeat([2.0, 0.5, 1.0], [20, 20, 60])

    def draw(rate, n):
        mean = rng.lognormal(6.5, 0.2, (n, 1)) * rate / rate.sum()
        return sparse.csr_matrix(rng.poisson(rng.gamma(4.0, mean / 4.0)).astype(float))

    return draw(profile * fold, 90), draw(profile, 80), draw(profile * fold, 90)


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


def test_the_cells_scored_of_many_represent_all(cells, rng):
    truth, control, replicate = cells
    score = bm.score_prediction(bm.Prediction(replicate), truth[:12], control, rng)
    every = bm.Prediction(replicate).log_values()
    expected = every.mean(axis=0) - bm.Prediction(control).log_values().mean(axis=0)
    drawn = [np.linalg.norm((every[rng.permutation(90)[:12]] - every.mean(axis=0)).mean(axis=0)) for _ in range(20)]
    assert np.linalg.norm(score.effect - expected) < 0.8 * np.mean(drawn)


def test_nan_in_a_prediction_is_an_error(cells, rng):
    truth, control, _ = cells
    values = bm.Prediction(truth).log_values()
    values[0, 0] = np.nan
    with pytest.raises(FloatingPointError, match="1 non-finite"):
        bm.score_prediction(bm.Prediction(values, "log1p_cp10k"), truth, control, rng)
