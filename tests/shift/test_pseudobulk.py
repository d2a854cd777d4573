from dataclasses import fields

import numpy as np
import pytest
import scipy.sparse as sp

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import DEPTH_LEVELS, PseudoBulk, expected_noise, pseudo_bulk


def counts_and_groups(seed: int = 0, n_genes: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 1.0, n_genes) * rng.lognormal(0, 0.3, (90, 1)))
    counts[:, 7] = 0
    return counts, rng.integers(0, 3, 90)


def test_means_and_quantiles_are_those_of_the_dense_formula() -> None:
    counts, groups = counts_and_groups()
    bulk = pseudo_bulk(sp.csr_matrix(counts), groups, 3)
    for group in range(3):
        x = counts[groups == group].astype(float)
        depth = x.sum(1, keepdims=True)
        np.testing.assert_allclose(bulk.log_mean[group], np.log1p(1e4 * x / depth).mean(0), atol=1e-12)
        np.testing.assert_allclose(bulk.rate[group], 1e4 * x.sum(0) / x.sum(), rtol=1e-12)
        np.testing.assert_allclose(bulk.depth_quantiles[group], np.quantile(depth, DEPTH_LEVELS))
        assert bulk.n_cells[group] == len(x)


def test_noise_is_the_sampling_variance_of_the_means_and_cautious_for_sparse_genes() -> None:
    rng = np.random.default_rng(1)
    rate = rng.gamma(0.5, 1.0, 200) + 0.02
    draws = [rng.poisson(rng.gamma(3.0, rate / 3, (40, 200))) for _ in range(300)]
    bulk = pseudo_bulk(sp.csr_matrix(np.concatenate(draws)), np.repeat(np.arange(300), 40), 300)
    for mean, noise in ((bulk.log_mean, bulk.log_noise), (bulk.rate, bulk.rate_noise)):
        ratio = noise.mean(0) / mean.var(0, ddof=1)
        often = rate > 0.5  # 20 counts in a group
        assert 0.95 < np.median(ratio[often]) < 1.15
        assert ((ratio > 0.7) & (ratio < 1.5))[often].all()
        assert ((ratio > 0.9) & (ratio < 2.5))[rate < 0.1].all()


def test_sparse_dense_and_integer_input_agree() -> None:
    counts, groups = counts_and_groups()
    reference = pseudo_bulk(sp.csr_matrix(counts.astype(float)), groups, 3)
    for other in (counts, sp.csc_matrix(counts), sp.csr_matrix(counts.astype(np.int32))):
        for field in fields(PseudoBulk):
            np.testing.assert_array_equal(
                getattr(pseudo_bulk(other, groups, 3), field.name), getattr(reference, field.name)
            )


def test_input_is_not_altered() -> None:
    counts, groups = counts_and_groups()
    matrix = sp.csr_matrix(counts.astype(float))
    before = matrix.copy()
    pseudo_bulk(matrix, groups, 3)
    assert (matrix != before).nnz == 0


def test_permuting_genes_and_cells_permutes_the_profile() -> None:
    counts, groups = counts_and_groups()
    rng = np.random.default_rng(3)
    genes, cells = rng.permutation(60), rng.permutation(90)
    bulk = pseudo_bulk(counts, groups, 3)
    moved = pseudo_bulk(counts[cells][:, genes], groups[cells], 3)
    for name in ("log_mean", "log_noise", "rate", "rate_noise"):
        np.testing.assert_allclose(getattr(moved, name), getattr(bulk, name)[:, genes], rtol=1e-9)


def test_group_without_cells_is_nan_and_one_cell_is_enough() -> None:
    counts, _ = counts_and_groups()
    bulk = pseudo_bulk(counts[:1], [1], 3)
    np.testing.assert_array_equal(bulk.n_cells, [0, 1, 0])
    assert np.isnan(bulk.log_mean[[0, 2]]).all() and np.isnan(bulk.depth_quantiles[[0, 2]]).all()
    for name in ("log_mean", "log_noise", "rate", "rate_noise"):
        assert np.isfinite(getattr(bulk, name)[1]).all()
    assert (bulk.log_noise[1] > 0).all() and (bulk.rate_noise[1] > 0).all()
    nothing = pseudo_bulk(sp.csr_matrix((0, 60)), np.empty(0, dtype=int), 1)
    assert np.isnan(nothing.rate).all() and nothing.n_cells[0] == 0


def test_cells_and_genes_without_counts_are_finite_and_a_silent_gene_is_not_certain() -> None:
    counts, groups = counts_and_groups()
    counts[4] = 0
    bulk = pseudo_bulk(counts, groups, 3)
    assert (bulk.log_mean[:, 7] == 0).all()
    assert (bulk.log_noise[:, 7] > 0).all() and np.isfinite(bulk.log_noise).all() and np.isfinite(bulk.rate_noise).all()


def test_take_and_concatenate_are_inverse() -> None:
    bulk = pseudo_bulk(*counts_and_groups(), 3)
    again = PseudoBulk.concatenate([bulk.take([0]), bulk.take(np.array([False, True, True]))])
    assert again.n_groups == 3 and again.n_genes == 60
    for field in fields(PseudoBulk):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(bulk, field.name))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.zeros(89, dtype=int), r"\(89,\)"),
        (np.zeros(90), "integer"),
        (np.full(90, 3), "90 cells"),
        (np.full(90, -1), "90 cells"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message) -> None:
    with pytest.raises(DataError, match=message):
        pseudo_bulk(counts_and_groups()[0], groups, 3)


def test_parts_of_different_genes_are_refused() -> None:
    small, large = (pseudo_bulk(*counts_and_groups(n_genes=n), 3) for n in (20, 30))
    with pytest.raises(DataError, match=r"\[20, 30\]"):
        PseudoBulk.concatenate([small, large])
    with pytest.raises(DataError, match="at least one"):
        PseudoBulk.concatenate([])


def test_counts_with_unsorted_indices_are_left_alone():
    counts = sp.csr_matrix(np.array([[1.0, 2.0, 3.0], [0.0, 4.0, 5.0]], dtype=np.float32))
    unsorted = sp.csr_matrix((counts.data[[2, 0, 1, 4, 3]], counts.indices[[2, 0, 1, 4, 3]], counts.indptr), (2, 3))
    expected = pseudo_bulk(counts, np.zeros(2, dtype=int), 1)
    np.testing.assert_array_equal(pseudo_bulk(unsorted, np.zeros(2, dtype=int), 1).log_mean, expected.log_mean)
    np.testing.assert_array_equal(unsorted.toarray(), counts.toarray())


def test_noise_of_new_cells_follows_the_level_also_of_genes_that_switch_on() -> None:
    rng = np.random.default_rng(4)
    rate = rng.gamma(0.6, 1.5, 400) + 0.01
    switched = np.where(np.arange(400) < 40, 4.0, rate)
    control, seen, new = (
        pseudo_bulk(rng.poisson(r, (200, 400)), np.zeros(200, dtype=int), 1) for r in (rate, switched, switched)
    )
    low = np.arange(400)[:40][rate[:40] < 0.3]
    true = new.log_noise[0] * 200
    expected = expected_noise(seen, new.log_mean[0], 50)
    assert abs(np.log(50 * expected / true)).mean() < 0.2
    assert (
        abs(np.log(50 * expected / true)[low].mean()) < 0.2 < abs(np.log(control.log_noise[0] * 200 / true)[low].mean())
    )
    np.testing.assert_allclose(expected_noise(seen, new.log_mean[0], 200), expected / 4)
    empty = seen.take(np.empty(0, dtype=int))
    for bulk, n_cells, words in ((empty, 10, "0 groups"), (seen, 0, "0 new cells")):
        with pytest.raises(DataError, match=words):
            expected_noise(bulk, new.log_mean[0], n_cells)


def test_blocks_of_cells_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, groups = counts_and_groups()
    whole = pseudo_bulk(counts, groups, 3)
    monkeypatch.setattr("cfmvc_scvi.shift.pseudobulk._BLOCK", 7 * counts.shape[1])
    in_blocks = pseudo_bulk(counts, groups, 3)
    for field in fields(whole):
        np.testing.assert_allclose(getattr(in_blocks, field.name), getattr(whole, field.name), rtol=1e-9)
