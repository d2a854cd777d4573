"""Messages as an Arrow stream: a JSON header in the schema and a row per cell, which can be read as they come."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.errors import DataError

__all__ = ["arrow_head", "arrow_rows", "read_arrow", "write_arrow"]

_HEADER = b"cfmvc-scvi"  # key of the schema's metadata
_CONTINUATION = b"\xff\xff\xff\xff"
_SCHEMA, _RECORD_BATCH = 1, 3  # MessageHeader of Arrow's Message.fbs
_HEADER_TYPE, _HEADER_TABLE, _BODY_LENGTH, _COMPRESSION = 6, 8, 10, 10  # places of fields in the vtables
_COLUMNS = ("genes", "counts")


def write_arrow(header: Mapping[str, Any], matrix: sp.spmatrix | NDArray, latents: Mapping[str, NDArray]) -> bytes:
    """Return a whole message: `arrow_head`, `arrow_rows` of all cells, and the end of the stream."""
    return arrow_head(header, list(latents)) + arrow_rows(matrix, latents) + _CONTINUATION + bytes(4)


def arrow_head(header: Mapping[str, Any], latents: list[str]) -> bytes:
    """Return the beginning of a stream: its schema, with the header as JSON.

    Parameters
    ----------
    header
        What JSON can hold.
    latents
        Names of further columns of numbers.
    """
    return _schema(latents).with_metadata({_HEADER: json.dumps(header, allow_nan=False)}).serialize().to_pybytes()


def arrow_rows(matrix: sp.spmatrix | NDArray, latents: Mapping[str, NDArray]) -> bytes:
    """Return cells as a part of a stream.

    Parameters
    ----------
    matrix
        `(cells, genes)`; of each cell, the genes other than zero and their values.
    latents
        Columns, `(cells, dims)` each.
    """
    pa = require_extra("pyarrow", "serve")
    rows = sp.csr_matrix(matrix)
    offsets = pa.array(rows.indptr.astype(np.int32))
    columns = [
        pa.ListArray.from_arrays(offsets, pa.array(rows.indices.astype(np.int32))),
        pa.ListArray.from_arrays(offsets, pa.array(rows.data.astype(np.float32))),
    ]
    for values in latents.values():
        ends = pa.array((np.arange(len(values) + 1) * values.shape[1]).astype(np.int32))
        columns.append(pa.ListArray.from_arrays(ends, pa.array(values.astype(np.float32).ravel())))
    return pa.record_batch(columns, schema=_schema(list(latents))).serialize().to_pybytes()


def read_arrow(content: bytes, n_genes_of: str) -> tuple[dict[str, Any], sp.csr_matrix, dict[str, NDArray]]:
    """Read a message of somebody who is not trusted.

    Compressed streams are refused by what their messages say, before a byte of them is unpacked: so a stream takes no
    more memory than it has bytes.

    Parameters
    ----------
    content
        What was sent.
    n_genes_of
        Key of the header with the list of genes.

    Returns
    -------
    The header, the matrix `(cells, genes)`, and further columns.

    Raises
    ------
    DataError
        If it is no Arrow stream, is compressed, or its columns are not those of `write_arrow`.
    """
    pa = require_extra("pyarrow", "serve")
    _refuse_compressed(content)
    try:
        with pa.ipc.open_stream(io.BytesIO(content)) as reader:
            schema = reader.schema
            latents = [name for name in schema.names if name not in _COLUMNS]
            if len(set(schema.names)) < len(schema.names) or not schema.equals(_schema(latents)):
                raise DataError(
                    f"the columns of the Arrow stream are {schema.names}; send lists: {', '.join(_COLUMNS)}"
                )
            table = reader.read_all()
        table.validate(full=True)
        header = json.loads((schema.metadata or {})[_HEADER])
        n_genes = len(header[n_genes_of])
    except DataError:
        raise
    except (pa.ArrowException, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"this is not a message in Arrow: {type(error).__name__}") from error
    if table.num_rows == 0 or any(column.null_count for column in table.columns):
        raise DataError("the Arrow stream has no cells, or cells without a value")
    matrix = _matrix(table, n_genes)
    return header, matrix, {name: np.stack([np.asarray(row) for row in table[name].to_pylist()]) for name in latents}


def _matrix(table: Any, n_genes: int) -> sp.csr_matrix:
    indices, values = (table[name].combine_chunks() for name in _COLUMNS)
    lengths = np.diff(indices.offsets.to_numpy())
    if not np.array_equal(lengths, np.diff(values.offsets.to_numpy())):
        raise DataError("a cell of the Arrow stream has another number of genes than of counts")
    column = indices.flatten().to_numpy(zero_copy_only=False)
    data = values.flatten().to_numpy(zero_copy_only=False)
    if len(column) and not (column.dtype.kind == "i" and 0 <= column.min() and column.max() < n_genes):
        raise DataError(f"a gene of the Arrow stream has a number outside 0 .. {n_genes - 1}")
    pointer = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_matrix((data, column, pointer), shape=(table.num_rows, n_genes))


def _schema(latents: list[str]) -> Any:
    pa = require_extra("pyarrow", "serve")
    types = {"genes": pa.int32(), "counts": pa.float32(), **{name: pa.float32() for name in latents}}
    return pa.schema([(name, pa.list_(kind)) for name, kind in types.items()])


def _refuse_compressed(content: bytes) -> None:
    """Walk over the messages of a stream, and refuse what is not a schema or an uncompressed batch of records."""
    for kind, compressed in _messages(content):
        if kind not in (_SCHEMA, _RECORD_BATCH) or compressed:
            raise DataError("the Arrow stream is compressed or has dictionaries; write it plainly")


def _messages(content: bytes) -> Iterator[tuple[int, bool]]:
    """Iterate over the messages: the kind of each, and whether its body is compressed."""
    table = require_extra("flatbuffers.table", "serve").Table
    start = 0
    try:
        while start < len(content):
            if content[start : start + 4] != _CONTINUATION:
                raise DataError("this is not a message in Arrow: no stream begins there")
            size = int.from_bytes(content[start + 4 : start + 8], "little", signed=True)
            if size == 0:
                return
            metadata = bytearray(content[start + 8 : start + 8 + size])
            if size < 0 or len(metadata) < size:
                raise DataError("the Arrow stream is cut off")
            root = table(metadata, int.from_bytes(metadata[:4], "little"))
            kind, body = _number(root, _HEADER_TYPE, 1), _number(root, _BODY_LENGTH, 8)
            place = root.Offset(_HEADER_TABLE)
            compressed = False
            if kind == _RECORD_BATCH and place:
                batch = table(metadata, root.Indirect(root.Pos + place))
                compressed = bool(batch.Offset(_COMPRESSION))
            yield kind, compressed
            if body < 0 or start + 8 + size + body > len(content):
                raise DataError("the Arrow stream is cut off")
            start += 8 + size + body
    except DataError:
        raise
    except (IndexError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise DataError(f"this is not a message in Arrow: {type(error).__name__}") from error


def _number(table: Any, place: int, size: int) -> int:
    offset = table.Offset(place)
    start = table.Pos + offset
    return int.from_bytes(table.Bytes[start : start + size], "little", signed=size > 1) if offset else 0
