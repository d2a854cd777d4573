"""Messages as npz: a JSON header, and arrays; no pickles, and nothing larger than allowed, compressed or not."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError

__all__ = ["read_npz", "write_npz"]

_HEADER = "header"  # name of the array that holds the JSON text
_MOST_ARRAYS = 16
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError)


def write_npz(header: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> bytes:
    """Return a message: plain values, and arrays by name.

    Parameters
    ----------
    header
        What JSON can hold.
    arrays
        Of numbers.
    """
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    # the fastest level: numpy's own writer takes the usual one, and five times as long for a tenth less
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in {_HEADER: text, **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def read_npz(content: bytes, most_bytes: int) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read a message of somebody who is not trusted.

    The sizes that the archive states are added up before anything is unpacked, and no more than stated is; an array
    must be as large as its own header says.

    Parameters
    ----------
    content
        What was sent.
    most_bytes
        Sum of the unpacked sizes that is accepted.

    Raises
    ------
    OverflowError
        If it would unpack to more.
    DataError
        If it is no npz, or holds anything but a JSON header and arrays of numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ARRAYS or len({entry.filename for entry in entries}) < len(entries):
                raise DataError(f"the npz has {len(entries)} arrays; at most {_MOST_ARRAYS}, each once")
            size = sum(entry.file_size for entry in entries)
            if size > most_bytes:
                raise OverflowError(f"the npz unpacks to {size} bytes; at most {most_bytes} are accepted")
            arrays = {entry.filename.removesuffix(".npy"): _array(_unpacked(archive, entry)) for entry in entries}
        header = json.loads(arrays.pop(_HEADER).tobytes())
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"this is not a message in npz: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise DataError("the header of the npz is not a JSON object")
    return header, arrays


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Unpack as much as the archive states; a `read` without a number unpacks everything before it looks."""
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _array(content: bytes) -> NDArray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise DataError(f"an array is in format {version} of numpy; write it with numpy.savez")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or dtype.kind not in "biuf" or fortran:
        raise DataError(f"an array has type {dtype}; send numbers, in C order")
    rest = content[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(rest) or min(shape, default=0) < 0:
        raise DataError(f"an array of shape {shape} has {len(rest)} bytes")
    return np.frombuffer(rest, dtype=dtype).reshape(shape)
