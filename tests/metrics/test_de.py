import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm, rankdata

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import (
    DEResult,
    auprc_de,
    de_overlap,
    direction_fidelity,
    equal_cells,
    lfc_nmae,
    rank_sum_de,
    sig_jaccard,
)


def result(p_adj, mean, reference_mean=1.0):
    mean = np.asarray(mean, dtype=float)
    return DEResult(np.asarray(p_adj, dtype=float), mean, np.broadcast_to(reference_mean, mean.shape).astype(float))


@pytest.fixture
def truth():
    """Four significant genes of six: up 16, up 8, down 4, up 2."""
    return result([0.01, 0.01, 0.01, 0.01, 0.5, 0.9], [16, 8, 0.25, 2, 1, 1])


def test_rank_sum_closed_form_with_ties():
    x, y = np.array([[1.0], [2.0], [2.0]]), np.array([[0.0], [2.0], [0.0]])
    ranks = rankdata(np.vstack([x, y]))  # 1.5 1.5 3 5 5 5
    u = ranks[:3].sum() - 6
    variance = 9 / 12 * (7 - (2 * 3 + 3 * 8) / (6 * 5))
    expected = 2 * norm.sf((abs(u - 4.5) - 0.5) / np.sqrt(variance))
    assert rank_sum_de(x, y).p_adj[0] == pytest.approx(expected, rel=1e-12)


def test_rank_sum_and_bh_gene_by_gene(rng):
    x, y = rng.poisson(1.5, (25, 30)).astype(float), rng.poisson(1.0, (30, 30)).astype(float)
    p = np.array([mannwhitneyu(x[:, g], y[:, g], method="asymptotic").pvalue for g in range(30)])
    order = np.argsort(p)
    adjusted = np.minimum.accumulate((p[order] * 30 / np.arange(1, 31))[::-1])[::-1]
    expected = np.empty(30)
    expected[order] = np.minimum(adjusted, 1)
    de = rank_sum_de(x, y)
    np.testing.assert_allclose(de.p_adj, expected, rtol=1e-12)
    np.testing.assert_allclose(de.mean, np.expm1(x).mean(0))


def test_constant_genes_are_not_significant(rng):
    x, y = rng.normal(size=(10, 3)), rng.normal(size=(10, 3))
    x[:, 1] = y[:, 1] = 4.0
    assert rank_sum_de(x, y).p_adj[1] == 1.0
    assert (rank_sum_de(np.zeros((5, 2)), np.zeros((5, 2))).p_adj == 1.0).all()


def test_null_genes_are_rarely_significant_and_strong_ones_are(rng):
    x, y = rng.normal(size=(60, 400)), rng.normal(size=(60, 400))
    x[:, :40] += 2.0
    called = rank_sum_de(x, y).significant
    assert called[:40].all()
    assert called[40:].mean() < 0.03


def test_equal_cells_draws_subsets(rng):
    groups = [np.arange(n)[:, None] * np.ones((1, 2)) for n in (5, 9, 7)]
    drawn = equal_cells(*groups, rng=rng)
    assert [len(group) for group in drawn] == [5, 5, 5]
    assert all(len(np.unique(group[:, 0])) == 5 for group in drawn)


def test_perfect_agreement(truth):
    assert de_overlap(truth, truth) == sig_jaccard(truth, truth) == direction_fidelity(truth, truth) == 1.0
    assert auprc_de(truth, truth) == pytest.approx(1.0)
    assert lfc_nmae(truth, truth, min_genes=4) == 0.0


def test_overlap_takes_the_largest_predicted_changes(truth):
    many = result([0.01] * 6, [16, 1.1, 0.25, 1.2, 32, 8])  # top four: genes 4, 0, 5, 2
    assert de_overlap(many, truth) == 0.5
    few = result([0.01, 1, 1, 1, 1, 0.01], [2, 1, 1, 1, 1, 2])
    assert de_overlap(few, truth) == 0.25
    nothing = result([1.0] * 6, np.ones(6))
    assert de_overlap(nothing, truth) == de_overlap(truth, nothing) == 0.0


def test_overlap_ranks_genes_that_turn_on_by_the_pseudocount():
    truth = result([0.01, 1.0], [3, 3], [1, 0])
    predicted = result([0.01, 0.01], [3, 0.1], [1, 0])
    assert de_overlap(predicted, truth) == 0.0
    assert de_overlap(predicted, truth, pseudocount=1.0) == 1.0


def test_jaccard_closed_form(truth):
    predicted = result([0.01, 0.01, 0.5, 0.5, 0.01, 0.5], np.ones(6))
    assert sig_jaccard(predicted, truth) == pytest.approx(2 / 5)
    nothing = result([1.0] * 6, np.ones(6))
    assert sig_jaccard(nothing, nothing) == 1.0
    assert sig_jaccard(nothing, truth) == 0.0


def test_nmae_of_no_change_is_one_and_half_the_change_half(truth):
    unchanged = result([1.0] * 6, np.ones(6))
    assert lfc_nmae(unchanged, truth, min_genes=4) == pytest.approx(1.0)
    half = result([1.0] * 6, np.sqrt(truth.mean))
    assert lfc_nmae(half, truth, pseudocount=1e-12, min_genes=4) == pytest.approx(0.5)


def test_scores_that_the_truth_leaves_undefined_are_nan(truth):
    assert np.isnan(lfc_nmae(truth, truth, min_genes=5))
    assert np.isnan(auprc_de(truth, result([1.0] * 6, np.ones(6))))
    assert np.isnan(auprc_de(truth, result([0.0] * 6, np.ones(6))))


def test_direction_charges_wrong_signs_and_both_kinds_of_wrong_numbers(truth):
    wrong_sign = result([0.01] * 4 + [1, 1], [16, 8, 4, 2, 1, 1])
    assert direction_fidelity(wrong_sign, truth) == 0.75
    too_few = result([0.01, 0.01, 1, 1, 1, 1], truth.mean)
    assert direction_fidelity(too_few, truth) == 0.5
    truth_with_trends = result(truth.p_adj, [16, 8, 0.25, 2, 1.1, 0.9])
    too_many = result([0.01] * 6, [16, 8, 0.25, 2, 0.5, 2])
    assert direction_fidelity(too_many, truth_with_trends) == pytest.approx(4 / 6)
    nothing = result([1.0] * 6, np.ones(6))
    assert direction_fidelity(nothing, nothing) == 1.0


def test_auprc_without_information_is_the_share_of_positives(truth):
    assert auprc_de(result([0.3] * 6, np.ones(6)), truth) == pytest.approx(4 / 6)


@pytest.mark.parametrize("score", [de_overlap, sig_jaccard, lfc_nmae, direction_fidelity, auprc_de])
def test_different_genes_are_refused(truth, score):
    with pytest.raises(DataError, match="'predicted': 5, 'truth': 6"):
        score(result([1.0] * 5, np.ones(5)), truth)


def test_fold_change_needs_a_pseudocount(truth):
    np.testing.assert_allclose(result([1, 1], [7, 1], [1, 3]).log2_fold_change(1.0), [2.0, -1.0])
    with pytest.raises(DataError, match="pseudocount is 0"):
        truth.log2_fold_change(0)
