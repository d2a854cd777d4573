"""Plans of what is read together, and counts that are read by rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cfmvc_scvi.data import CollectionCounts, load_requests


@settings(deadline=None)
@given(st.data())
def test_each_cell_is_asked_for_once_and_no_other(data: st.DataObject) -> None:
    n_cells = data.draw(st.integers(3, 200))
    rng = np.random.default_rng(data.draw(st.integers(0, 5)))
    rows = rng.permutation(n_cells)[: data.draw(st.integers(3, n_cells))]
    n_batches = data.draw(st.integers(1, max(1, len(rows) // 3)))
    chunk_size, preload_nchunks = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 10))
    order = rng if data.draw(st.booleans()) else None
    requests = list(
        load_requests(rows, n_cells, n_batches, chunk_size=chunk_size, preload_nchunks=preload_nchunks, rng=order)
    )
    asked = []
    for request in requests:
        read = np.concatenate([np.arange(part.start, part.stop) for part in request["requests"]])
        assert len(np.unique(read)) == len(read) and read.max() < n_cells
        assert all(part.stop - part.start == chunk_size for part in request["requests"][:-1])
        assert sum(map(len, request["splits"])) >= 3
        asked += [read[split] for split in request["splits"]]
    assert len(asked) == n_batches
    seen = np.concatenate(asked)
    np.testing.assert_array_equal(np.sort(seen) if order else seen, np.sort(rows))


def test_readings_are_as_large_as_memory_was_given_for(rng: np.random.Generator) -> None:
    rows = rng.permutation(10_000)[:9000]
    requests = list(load_requests(rows, 10_000, 70, chunk_size=64, preload_nchunks=16, rng=rng))
    assert max(len(request["requests"]) for request in requests) == 16
    sizes = np.array([len(split) for request in requests for split in request["splits"]])
    assert len(sizes) == 70 and 80 < sizes.min() and sizes.max() < 180  # 129 on average


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_rows_of_several_data_sets_are_those_of_one_matrix(dtype: type, rng: np.random.Generator) -> None:
    whole = sparse.random(300, 20, 0.3, format="csr", random_state=rng)
    whole.data = np.ceil(whole.data * 9)
    whole = whole.astype(dtype)
    narrow = whole[:100].copy()
    narrow.indices = narrow.indices.astype(np.uint8)  # as annbatch stores them
    counts = CollectionCounts([narrow, whole[100:250].toarray(), whole[250:]])
    assert counts.shape == whole.shape and counts.dtype == dtype
    for rows in (
        slice(90, 260),
        slice(None),
        slice(0, 0),
        np.array([0, 99, 100, 299]),
        np.arange(240, 260),
        np.arange(0),
    ):
        found = counts[rows]
        assert found.dtype == dtype and found.indices.dtype == np.int32
        np.testing.assert_array_equal(found.toarray(), whole[rows].toarray())
