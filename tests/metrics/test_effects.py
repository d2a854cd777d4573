import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import r2_score

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.metrics import (
    de_scores,
    log_normalize,
    pearson_delta,
    pearson_delta_top,
    r2_of_means,
    score_weights,
    top_genes,
    weighted_mse,
    weighted_r2,
)


@pytest.fixture
def profiles(rng):
    control = rng.gamma(2.0, 0.5, 40)
    truth = control + rng.normal(0, 0.3, 40)
    return truth + rng.normal(0, 0.1, 40), truth, control


def test_log_normalize_closed_form():
    counts = np.array([[1, 3], [0, 0], [5, 0]])
    expected = np.log1p([[25.0, 75.0], [0.0, 0.0], [100.0, 0.0]])
    np.testing.assert_allclose(log_normalize(counts, target_sum=100), expected, rtol=1e-15)
    np.testing.assert_array_equal(log_normalize(sparse.csr_matrix(counts)), log_normalize(counts))
    assert log_normalize(counts.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        ([[1.0, -2.0]], DataError, "1 negative values, the lowest -2"),
        ([[1.0, np.nan]], NonFiniteError, r"1 non-finite values, the first at \(0, 1\)"),
        ([1.0, 2.0], DataError, r"shape \(2,\)"),
    ],
)
def test_log_normalize_refuses(counts, error, message):
    with pytest.raises(error, match=message):
        log_normalize(np.array(counts))


def test_log_normalize_refuses_a_target_of_zero():
    with pytest.raises(DataError, match="target_sum is 0"):
        log_normalize(np.ones((2, 2)), target_sum=0)


def test_pearson_delta_is_pearson_of_the_effects(profiles):
    predicted, truth, control = profiles
    expected = stats.pearsonr(predicted - control, truth - control).statistic
    assert pearson_delta(predicted, truth, control) == pytest.approx(expected, abs=1e-12)
    assert pearson_delta(truth, truth, control) == pytest.approx(1.0)
    assert pearson_delta(control - 2 * (truth - control), truth, control) == pytest.approx(-1.0)


def test_pearson_delta_of_no_effect_is_zero_and_of_no_truth_an_error(profiles):
    _, truth, control = profiles
    assert pearson_delta(control + 1e-15, truth, control) == 0.0
    with pytest.raises(DataError, match="truth has no effect"):
        pearson_delta(truth, control, control)


def test_pearson_delta_refuses_other_genes(profiles):
    predicted, truth, control = profiles
    with pytest.raises(DataError, match="'predicted': 39, 'truth': 40"):
        pearson_delta(predicted[:-1], truth, control)


def test_top_genes_alone_decide_the_top_correlation(profiles, rng):
    predicted, truth, control = profiles
    scores = np.arange(40.0)
    elsewhere = predicted.copy()
    elsewhere[:30] = rng.normal(size=30)
    kept = pearson_delta_top(predicted, truth, control, scores, n_top=10)
    assert pearson_delta_top(elsewhere, truth, control, scores, n_top=10) == kept
    assert kept == pytest.approx(pearson_delta(predicted[30:], truth[30:], control[30:]))


def test_top_genes_order_and_ties():
    np.testing.assert_array_equal(top_genes([1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3])
    assert len(top_genes([1.0, 2.0], 50)) == 2
    with pytest.raises(DataError, match="n_top is 1"):
        top_genes([1.0, 2.0], 1)


def test_de_scores_approach_the_welch_statistic(rng):
    truth, control = rng.normal(0.5, 1, (30, 8)), rng.normal(0, 2, (45, 8))
    expected = np.abs(stats.ttest_ind(truth, control, equal_var=False).statistic)
    np.testing.assert_allclose(de_scores(truth, control, offset=1e-12), expected, rtol=1e-9)
    assert (de_scores(truth, control) < expected).all()


def test_de_scores_of_a_constant_gene_are_finite(rng):
    truth, control = rng.normal(size=(10, 3)), rng.normal(size=(10, 3))
    truth[:, 0] = control[:, 0] = 0.0
    assert de_scores(truth, control)[0] == 0.0
    with pytest.raises(DataError, match="offset is 0"):
        de_scores(truth, control, offset=0)


def test_r2_of_means_is_that_of_sklearn(profiles):
    predicted, truth, _ = profiles
    assert r2_of_means(predicted, truth) == pytest.approx(r2_score(truth, predicted))
    with pytest.raises(DataError, match="same in all genes"):
        r2_of_means([1.0, 2.0], [1.0, 1.0])


def test_weights_closed_form():
    np.testing.assert_allclose(score_weights([1.0, 2.0, 3.0]), [0.0, 0.2, 0.8])
    with pytest.raises(DataError, match="All DE scores are equal"):
        score_weights([2.0, 2.0])


def test_weighted_mse_and_r2_follow_the_weights(profiles, rng):
    predicted, truth, control = profiles
    scores = rng.gamma(1.0, 1.0, 40)
    weights = score_weights(scores)
    expected = np.average((predicted - truth) ** 2, weights=weights)
    assert weighted_mse(predicted, truth, scores) == pytest.approx(expected)
    of_sklearn = r2_score(truth - control, predicted - control, sample_weight=weights)
    assert weighted_r2(predicted, truth, control, scores) == pytest.approx(of_sklearn)
    assert weighted_mse(truth, truth, scores) == 0.0
    assert weighted_r2(truth, truth, control, scores) == 1.0


def test_weighted_mse_ignores_the_gene_of_lowest_score(profiles, rng):
    predicted, truth, _ = profiles
    scores = rng.gamma(1.0, 1.0, 40)
    spoiled = predicted.copy()
    spoiled[np.argmin(scores)] += 100.0
    assert weighted_mse(spoiled, truth, scores) == weighted_mse(predicted, truth, scores)
