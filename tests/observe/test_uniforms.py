from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.observe import cell_choice, cell_uniforms, count_uniforms

NAMES = [f"AAAC{i}-1" for i in range(300)]


def test_uniforms_are_those_of_philox_under_the_hashed_name():
    key = np.frombuffer(hashlib.blake2b(b"3,4,thin,AAAC7-1", digest_size=16).digest(), dtype="<u8")
    raw = np.random.Philox(key=key).random_raw(9)
    expected = ((raw >> np.uint64(12)).astype(float) + 0.5) / 2.0**52
    np.testing.assert_array_equal(cell_uniforms(3, ["x", "AAAC7-1"], 9, "thin")[1], expected)


def test_uniforms_are_uniform_and_independent_between_cells_genes_streams_and_seeds():
    u = cell_uniforms(0, NAMES, 200, "a")
    assert u.shape == (300, 200) and u.min() > 0 and u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    others = [cell_uniforms(1, NAMES, 200, "a"), cell_uniforms(0, NAMES, 200, "b"), np.roll(u, 1, 0), np.roll(u, 1, 1)]
    for other in others:
        assert abs(np.corrcoef(u.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(u.size)


def test_more_genes_and_other_cells_leave_a_uniform_where_it_is():
    u = cell_uniforms(0, NAMES, 50, "a")
    np.testing.assert_array_equal(cell_uniforms(0, NAMES[::-7], 20, "a"), u[::-7, :20])
    np.testing.assert_array_equal(cell_uniforms(0, pd.Index(NAMES), 50, "a"), u)


def test_seed_and_stream_cannot_be_mistaken_for_one_another():
    texts = [(1, "2,x", "y"), (1, "2", "x,y"), (12, "x", "y"), (1, "2,x,y", "")]
    firsts = {float(cell_uniforms(seed, [name], 1, stream)[0, 0]) for seed, stream, name in texts}
    assert len(firsts) == len(texts)


def split_mix(state, n):
    """Outputs of SplitMix64, in plain integers."""
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def test_uniforms_of_counts_are_those_of_split_mix_under_the_hashed_name():
    assert next(split_mix(1234567, 1)) == 6457827717110365317  # published with the algorithm
    digest = hashlib.blake2b(b"3,4,thin,AAAC7-1", digest_size=16).digest()
    raw = list(split_mix(int.from_bytes(digest[:8], "little"), 9))
    counts = sp.csr_matrix([[0, 0, 0, 0, 0, 0, 0, 0, 5], [1, 0, 2, 0, 0, 0, 7, 1, 0]])
    uniforms = count_uniforms(3, ["x", "AAAC7-1"], counts, "thin")
    np.testing.assert_array_equal(uniforms.indices, counts.indices)
    expected = [((raw[gene] >> 12) + 0.5) / 2.0**52 for gene in (0, 2, 6, 7)]
    np.testing.assert_array_equal(uniforms[1].data, expected)


def test_uniforms_of_counts_are_uniform_and_independent_between_cells_genes_streams_and_seeds():
    full = sp.csr_matrix(np.ones((300, 200)))
    u = count_uniforms(0, NAMES, full, "a").toarray()
    assert u.min() > 0 and u.max() < 1 and stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    others = [
        count_uniforms(1, NAMES, full, "a"),
        count_uniforms(0, NAMES, full, "b"),
        cell_uniforms(0, NAMES, 200, "a"),
    ]
    for other in [
        *others[:2],
        sp.csr_matrix(others[2]),
        sp.csr_matrix(np.roll(u, 1, 0)),
        sp.csr_matrix(np.roll(u, 1, 1)),
    ]:
        assert abs(np.corrcoef(u.ravel(), other.toarray().ravel())[0, 1]) < 5 / np.sqrt(u.size)


def test_other_cells_and_counts_leave_a_uniform_of_a_count_where_it_is():
    rng = np.random.default_rng(0)
    full, some = sp.csr_matrix(np.ones((300, 50))), sp.csr_matrix(rng.random((300, 50)) < 0.3)
    u = count_uniforms(0, NAMES, full, "a").toarray()
    np.testing.assert_array_equal(
        count_uniforms(0, NAMES[::-7], some[::-7], "a").toarray(), np.where(some.toarray(), u, 0)[::-7]
    )
    with pytest.raises(DataError, match="300 names for 2 cells"):
        count_uniforms(0, NAMES, full[:2], "a")


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_nothing_to_draw(shape):
    assert cell_uniforms(0, NAMES[: shape[0]], shape[1], "a").shape == shape


def test_names_that_are_no_list_of_strings_are_refused():
    with pytest.raises(DataError, match="single string 'AAAC'"):
        cell_uniforms(0, "AAAC", 3, "a")
    with pytest.raises(DataError, match="Cell 1 has the name 5 of type int"):
        cell_uniforms(0, ["AAAC", 5], 3, "a")
    with pytest.raises(DataError, match="n_genes is -1"):
        cell_uniforms(0, ["AAAC"], -1, "a")


def test_choices_follow_their_weights_and_never_fall_on_zero():
    weights = np.array([0.0, 1.0, 0.0, 5.0, 4.0, 0.0])
    names = [str(i) for i in range(20_000)]
    share = np.bincount(cell_choice(0, names, weights, "partner"), minlength=6) / len(names)
    assert (share[weights == 0] == 0).all()
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.015)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -0.1], [np.nan, 1.0], [np.inf, 1.0], [[1.0]]])
def test_weights_that_are_no_distribution_are_refused(weights):
    with pytest.raises(DataError, match="probabilities has shape"):
        cell_choice(0, ["a"], weights, "partner")
