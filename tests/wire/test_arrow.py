"""Messages in Arrow (needs the extra ``serve``)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.wire import arrow_head, arrow_rows, read_arrow, write_arrow

pytestmark = pytest.mark.serving

COUNTS = sparse.csr_matrix(np.array([[0, 2, 0], [1, 0, 3], [0, 0, 0]], dtype=np.float32))
LATENT = np.arange(6, dtype=np.float32).reshape(3, 2)
HEADER = {"genes": ["a", "b", "c"], "more": 1}


def test_what_is_written_is_read_in_one_part_or_several() -> None:
    whole = write_arrow(HEADER, COUNTS, {"latent": LATENT})
    parts = arrow_head(HEADER, ["latent"])
    for rows in (slice(0, 1), slice(1, 3)):
        parts += arrow_rows(COUNTS[rows], {"latent": LATENT[rows]})
    for content in (whole, parts + b"\xff\xff\xff\xff\x00\x00\x00\x00"):
        header, matrix, latents = read_arrow(content, "genes")
        assert header == HEADER
        np.testing.assert_array_equal(matrix.toarray(), COUNTS.toarray())
        np.testing.assert_array_equal(latents["latent"], LATENT)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_streams_are_refused_unread(codec: str) -> None:
    import pyarrow as pa

    with pa.ipc.open_stream(write_arrow(HEADER, COUNTS, {})) as reader:
        table = reader.read_all()
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="compressed"):
        read_arrow(sink.getvalue().to_pybytes(), "genes")


def test_columns_and_places_must_be_those_of_counts() -> None:
    import pyarrow as pa

    table = pa.table({"genes": [[0, 1]], "counts": [[1.0, 2.0]]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="send lists"):
        read_arrow(sink.getvalue().to_pybytes(), "genes")
    with pytest.raises(DataError, match=r"outside 0 \.\. 1"):
        read_arrow(write_arrow({"genes": ["a", "b"]}, COUNTS, {}), "genes")
    with pytest.raises(DataError, match="no cells"):
        read_arrow(write_arrow(HEADER, COUNTS[:0], {}), "genes")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_anything_else_is_refused(data: st.DataObject) -> None:
    content = bytearray(write_arrow(HEADER, COUNTS, {}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for sent in (bytes(content), bytes(content[: data.draw(st.integers(0, len(content)))]), data.draw(st.binary())):
        try:
            read_arrow(sent, "genes")
        except DataError:
            pass
