import numpy as np
import pytest
from scipy import sparse

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import correlation_structure, variance_log_ratio, zero_share


def test_variance_log_ratio_of_a_known_scale(rng):
    truth = rng.normal(size=(200, 6))
    narrow = truth.mean(0) + 0.5 * (truth - truth.mean(0))
    assert variance_log_ratio(narrow, truth, np.arange(6), offset=1e-12) == pytest.approx(-2.0)
    assert variance_log_ratio(truth, narrow, np.arange(6), offset=1e-12) == pytest.approx(2.0)
    assert variance_log_ratio(truth, truth, np.arange(6)) == 0.0


def test_variance_log_ratio_looks_at_the_given_genes_only(rng):
    truth = rng.normal(size=(50, 6))
    predicted = truth.copy()
    predicted[:, 3:] = 0.0
    assert variance_log_ratio(predicted, truth, [0, 1, 2]) == 0.0
    silent = variance_log_ratio(predicted, truth, [3, 4, 5])
    assert np.isfinite(silent) and silent < -8


def test_zero_share_of_dense_and_sparse():
    values = np.array([[0, 2, 0], [0, 0, 1]])
    assert zero_share(values) == zero_share(sparse.csr_matrix(values)) == pytest.approx(4 / 6)
    stored = sparse.csr_matrix(values)
    stored.data[0] = 0
    assert zero_share(stored) == pytest.approx(5 / 6)


def test_correlation_structure_sees_dependence_and_not_scale(rng):
    factor = rng.normal(size=(400, 1))
    loadings = np.array([1.0, 1, 1, -1, -1, 0, 0, 0])
    truth = factor * loadings + rng.normal(size=(400, 8))
    again = rng.permutation(factor) * loadings + rng.normal(size=(400, 8))
    shuffled = np.column_stack([rng.permutation(column) for column in truth.T])
    genes = np.arange(8)
    assert correlation_structure(3 * truth + 1, truth, genes) == pytest.approx(1.0)
    assert correlation_structure(again, truth, genes) > 0.9
    assert abs(correlation_structure(shuffled, truth, genes)) < 0.5


def test_correlation_structure_leaves_constant_genes_out(rng):
    truth = rng.normal(size=(30, 6))
    predicted = rng.normal(size=(30, 6))
    expected = correlation_structure(predicted[:, 1:], truth[:, 1:], np.arange(5))
    predicted[:, 0] = 1.0
    assert correlation_structure(predicted, truth, np.arange(6)) == pytest.approx(expected)
    assert np.isnan(correlation_structure(predicted, truth, [0, 1, 2]))


@pytest.mark.parametrize(
    ("genes", "message"),
    [([], "non-empty"), ([0.5], "indices"), ([7], r"outside 0..5, the first: 7"), ([-1], "the first: -1")],
)
def test_bad_genes_are_refused(rng, genes, message):
    values = rng.normal(size=(5, 6))
    with pytest.raises(DataError, match=message):
        variance_log_ratio(values, values, genes)


def test_variance_offset_must_be_positive(rng):
    values = rng.normal(size=(5, 6))
    with pytest.raises(DataError, match="offset is 0"):
        variance_log_ratio(values, values, [0], offset=0)
